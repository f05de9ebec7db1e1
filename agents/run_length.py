"""How many gradient updates a call of Stable-Baselines3's `learn` makes; topology schedules are fixed by it."""

from __future__ import annotations

from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit


def updates_of_steps(
    start: int, end: int, learning_starts: int, *, steps_per_rollout: int = 1, updates_per_rollout: int = 1
) -> int:
    """Gradient updates while env steps are counted from `start` to `end`, or to the end of the rollout that passes it.

    Args:
        start: Env steps, of all environments together, that have been counted before.
        end: Env steps up to which rollouts begin.
        learning_starts: Rollouts that end at or before this env step are followed by no update.
        steps_per_rollout: Env steps of a rollout, of all environments together.
        updates_per_rollout: Gradient updates after each.

    Example:
        >>> updates_of_steps(0, 1000, 100), updates_of_steps(0, 1000, 100, steps_per_rollout=8, updates_per_rollout=2)
        (900, 226)
    """
    rollouts = max(0, -(-(end - start) // steps_per_rollout))
    before = min(rollouts, max(0, (learning_starts - start) // steps_per_rollout))
    return (rollouts - before) * updates_per_rollout


def rollout_size(train_freq: int, gradient_steps: int, n_envs: int = 1) -> tuple[int, int]:
    """Env steps of a rollout, of all environments together, and gradient updates after it.

    Args:
        train_freq: Env steps of a rollout in each environment, >= 1.
        gradient_steps: Updates after it; a negative number is one for each env step.
        n_envs: Environments.

    Example:
        >>> rollout_size(2, -1, n_envs=3), rollout_size(2, 4, n_envs=3)
        ((6, 6), (6, 4))
    """
    steps = train_freq * n_envs
    return steps, steps if gradient_steps < 0 else gradient_steps


def updates_of_learn(agent: OffPolicyAlgorithm, total_timesteps: int, reset_num_timesteps: bool = True) -> int | None:
    """Gradient updates that `agent.learn` would make; None where the number of episodes decides that.

    With rollouts of episodes and `gradient_steps=-1` (one update per env step), those up to `total_timesteps`: the
    last episode may bring more.
    """
    frequency = agent.train_freq
    assert isinstance(frequency, TrainFreq)
    start = 0 if reset_num_timesteps else agent.num_timesteps
    end, waits = start + total_timesteps, agent.learning_starts
    if frequency.unit == TrainFrequencyUnit.EPISODE:
        return updates_of_steps(start, end, waits) if agent.gradient_steps < 0 else None
    steps, updates = rollout_size(frequency.frequency, agent.gradient_steps, agent.n_envs)
    return updates_of_steps(start, end, waits, steps_per_rollout=steps, updates_per_rollout=updates)
