"""DS-Recurrent-PPO: PPO with memory, whose LSTMs are truly sparse and rewire while they learn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.policies import BasePolicy

from sparserl.agents.config import AgentConfig
from sparserl.agents.networks.recurrent import SparseRecurrentPolicy
from sparserl.agents.on_policy_config import RecurrentPPOConfig, batches_advice
from sparserl.agents.on_policy_parts import PPOParts
from sparserl.agents.probe import SAMPLES
from sparserl.agents.sparse_on_policy import SparseOnPolicyMixin
from sparserl.errors import ConfigError
from sparserl.kernels.flops import count
from sparserl.layers import SparseLSTM
from sparserl.layers.recycle import Recycler
from sparserl.topology.density import Shape

FIRST = ("ih_l0", "ih_l0.weight")
"""How names of dense weights end that read observations."""


class DSRecurrentPPO(PPOParts, SparseOnPolicyMixin, RecurrentPPO):  # type: ignore[misc]  # a batch size may be None
    """Sparse `RecurrentPPO` of sb3-contrib: same constructor, `learn`, `save`, and `predict`, which gives states.

    `train` is sb3-contrib's; topology events follow the optimizer steps. Actor and critic each have an LSTM whose four
    gates compete for connections (`sparserl.layers.SparseLSTM`), and layers behind it.

    Args:
        policy: `"MlpPolicy"` or `"MlpLstmPolicy"`, the same, for sparse networks; or a policy class of sb3-contrib.
        env: As `DSPPO`, with vectors as observations.
        args: As `RecurrentPPO`; state-dependent exploration is refused.
        kwargs: As `RecurrentPPO`, and `topology`, `device` and `seed` as in `SparseAgentMixin`.

    A batch size that does not divide a rollout is warned of; None is a whole rollout.

    Raises:
        ConfigError: If neurons are to be recycled, or a batch has one env step whose advantage is to be normalised.

    Source:
        Liu et al. 2021 (Selfish-RNN), its rule for the gates, in the agent of sb3-contrib.

    Known differences from sb3-contrib:
        - A batch whose sequences begin with an episode goes through the LSTM at once; there, step by step.

    Known differences from Selfish-RNN:
        - Density is shared out by `topology.allocation`; there it is the same everywhere. Adam, not SNT-ASGD.

    Example:
        >>> from sparserl.agents.ds_recurrent_ppo import DSRecurrentPPO
        >>> options = dict(topology=dict(method="set", density=0.2), policy_kwargs=dict(lstm_hidden_size=16), seed=0)
        >>> agent = DSRecurrentPPO("MlpPolicy", "CartPole-v1", n_steps=16, batch_size=16, **options)
        >>> [name for name in agent.evolver.layers if name.startswith("actor")]
        ['actor.memory.ih_l0', 'actor.memory.hh_l0', 'actor.pi.0', 'actor.pi.1']
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": SparseRecurrentPolicy,
        "MlpLstmPolicy": SparseRecurrentPolicy,
    }
    remembered = ("lstm_states",)
    reads_vectors = False
    parts_of_rollout = (
        *SparseOnPolicyMixin.parts_of_rollout,
        "episode_starts",
        "hidden_states_pi",
        "cell_states_pi",
        "hidden_states_vf",
        "cell_states_vf",
    )
    _last_lstm_states: RNNStates  # type: ignore[assignment]  # before networks are made it is None

    def _setup_model(self) -> None:
        steps = self.n_steps * self.n_envs
        self.batch_size = self.batch_size or steps
        advice = batches_advice(self.batch_size, steps)
        self.check_advantages(advice or "raise batch_size")
        if advice is not None:
            problem = f"batch_size {self.batch_size} does not divide the {steps} env steps of a rollout"
            warnings.warn(f"{problem}, so the last has {self.smallest_batch}: {advice}", stacklevel=3)
        super()._setup_model()

    @classmethod
    def layer_shapes(cls, config: AgentConfig, n_obs: int, n_action: int) -> dict[str, list[list[Shape]]]:
        assert isinstance(config, RecurrentPPOConfig)
        lstm = SparseLSTM.shapes(n_obs, config.lstm_hidden, config.lstm_layers).values()
        after = super().layer_shapes(config, config.lstm_hidden, n_action)
        return {group: [[*lstm, *shapes] for shapes in networks] for group, networks in after.items()}

    @property
    def lstm_states(self) -> torch.Tensor:
        """(actor or critic, hidden or cell, layers, environments, H) what it remembers between rollouts."""
        return torch.stack([torch.stack(list(states)) for states in self._last_lstm_states])

    @lstm_states.setter
    def lstm_states(self, states: torch.Tensor) -> None:
        self._last_lstm_states = RNNStates(*((hidden.clone(), cell.clone()) for hidden, cell in states))

    def _make_recycler(self) -> Recycler | None:
        if self.topology.recycle_interval is not None:
            raise ConfigError(
                "neurons are recycled in networks without memory: leave topology.recycle_interval "
                f"{self.topology.recycle_interval} out"
            )
        return None

    def _sampled_rows(self, rng: np.random.Generator) -> np.ndarray:
        """(B,) consecutive steps of one environment."""
        length = min(SAMPLES, self.n_steps)
        first = rng.integers(self.n_envs) * self.n_steps + rng.integers(self.n_steps - length + 1)
        return first + np.arange(length)

    def _resize(self, rollout: Any, steps: int) -> None:
        super()._resize(rollout, steps)
        _, layers, _, width = rollout.hidden_state_shape
        rollout.hidden_state_shape = (steps, layers, 1, width)

    @torch.no_grad()
    def _read(self, rollout: Any) -> dict[str, torch.Tensor]:
        """(N, H) outputs of the LSTMs on a rollout of one environment."""
        policy: Any = self.policy
        starts, read = torch.from_numpy(rollout.episode_starts).flatten(), {}
        for group, part in (("actor", "pi"), ("critic", "vf")):
            states = [torch.from_numpy(getattr(rollout, f"{kind}_states_{part}")[0]) for kind in ("hidden", "cell")]
            observations, lstm = super()._read(rollout)[group], self.networks[group].memory
            read[group] = policy._process_sequence(observations, states, starts, lstm)[0]
        return read

    @contextmanager
    def _dense_products(self) -> Iterator[None]:
        """Batches are padded to the longest of their sequences, so no two rollouts do the same products."""
        policy: Any = self.policy
        # Forward, gradient of the weights, gradient of the input but for what reads observations.
        flops = sum(
            parameter.numel() * (4 if name.endswith(FIRST) else 6)
            for name, parameter in policy.named_parameters()
            if parameter.dim() == 2
        )
        evaluate = policy.evaluate_actions

        def counted(observations: torch.Tensor, *args: Any) -> Any:
            count(flops * len(observations))
            return evaluate(observations, *args)

        vars(policy)["evaluate_actions"] = counted
        try:
            yield
        finally:
            del vars(policy)["evaluate_actions"]
