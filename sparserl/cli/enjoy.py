"""`sparserl enjoy`: shows a run's policy in a window, or writes a video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
from tqdm import tqdm

from sparserl.cli.arguments import parse
from sparserl.errors import ConfigError
from sparserl.experiment.program import load
from sparserl.ranges import Count, CountOrZero, Repeats, Seed, check_ranges
from sparserl.recording.episodes import longest_episode
from sparserl.recording.rendering import check_display, drawing, render_off_screen
from sparserl.recording.run_folder import USUAL_CHECKPOINT, WhichCheckpoint
from sparserl.recording.video import SUFFIXES, Act, film, frames_per_second, play
from sparserl.written_files import check_writable


@dataclass(frozen=True)
class EnjoyCommand:
    """Watch the policy of a run."""

    run: Path
    """Run folder."""
    video: Path | None = None
    """Write this .mp4 (needs the `video` extra) or .gif instead of opening a window."""
    episodes: Repeats = 1
    """Number of episodes, of each task."""
    checkpoint: WhichCheckpoint = USUAL_CHECKPOINT
    """Which policy: the last, or the best by evaluation, which continual runs have not."""
    task: CountOrZero | None = None
    """Task of a continual run, from 0; one after another if None."""
    seed: Seed = 10_000
    """Seed of the first reset."""
    max_steps: Count | None = None
    """Stop each episode after this many env steps; None: after 10,000 where the environment has no time limit."""

    def __post_init__(self) -> None:
        check_ranges(self, "--")


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl enjoy`; returns the exit status."""
    command = parse(EnjoyCommand, arguments, command="enjoy")
    if command.video is not None and command.video.suffix not in SUFFIXES:
        raise ConfigError(f"--video must end in {' or '.join(SUFFIXES)}, got {command.video}")
    check_writable(command.video)
    if command.video is not None:
        render_off_screen()  # before MuJoCo is imported, which reads what this sets
    trained = load("sparserl.experiment.opened_agent_run").open_trained(command.run, command.checkpoint)
    tasks = trained.chosen(command.task)
    if command.video is None:
        check_display()
    mode = "human" if command.video is None else "rgb_array"
    with drawing(f"{', '.join(trained.tasks)} could not be rendered here"), ExitStack() as stack:
        envs = [stack.enter_context(closing(trained.make_env(task, render_mode=mode))) for task in tasks]
        add_picture: Callable[[gym.Env[Any, Any]], None] = _no_picture
        if command.video is not None:
            add_picture = stack.enter_context(film(command.video, frames_per_second(envs[0])))
        for task, env in zip(tasks, envs, strict=True):
            bound = longest_episode(env, command.max_steps)
            for episode in range(command.episodes):
                act = _deterministic(trained.policy(task))
                rewards = []
                with tqdm(total=bound, unit="step", disable=None) as bar:
                    for reward in play(env, act, seed=command.seed + episode, max_steps=bound):
                        rewards.append(reward)
                        add_picture(env)
                        bar.update()
                cut_off = ", where it was stopped" if len(rewards) == bound else ""
                said = f"return {sum(rewards):.1f} in {len(rewards)} steps{cut_off}"
                of_checkpoint = f"{trained.which} checkpoint, step {trained.step:,}"
                print(f"{trained.tasks[task]}, episode {episode}: {said} ({of_checkpoint})")
    if command.video is not None:
        print(f"wrote {command.video}")
    return 0


def _no_picture(env: gym.Env[Any, Any]) -> None:
    """The window draws by itself."""
    del env


def _deterministic(policy: Callable[[Any, bool], Any]) -> Act:
    """The mode of a policy that takes batches, for one observation."""
    return lambda observation: policy(observation[None], True)[0]
