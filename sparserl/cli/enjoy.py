"""`sparserl enjoy`: shows a run's policy in a window, or writes a video."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sparserl.cli.arguments import WhichCheckpoint, parse
from sparserl.errors import ConfigError
from sparserl.records import RunFolder
from sparserl.video import SUFFIXES, film, play, render_off_screen


@dataclass(frozen=True)
class EnjoyCommand:
    """Watch the policy of a run."""

    run: Path
    """Run folder."""
    video: Path | None = None
    """Write this .mp4 or .gif instead of opening a window (needs the `video` extra)."""
    episodes: int = 1
    """Number of episodes."""
    checkpoint: WhichCheckpoint = "best"
    """Which policy: the best by evaluation, or the last."""
    seed: int = 10_000
    """Seed of the first reset."""
    max_steps: int | None = None
    """Stop each episode after this many env steps."""


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl enjoy`; returns the exit status."""
    command = parse(EnjoyCommand, arguments, command="enjoy")
    if command.video is not None and command.video.suffix not in SUFFIXES:
        raise ConfigError(f"--video must end in {' or '.join(SUFFIXES)}, got {command.video}")
    if command.video is not None and not command.video.parent.is_dir():
        raise ConfigError(f"cannot write {command.video}: there is no folder {command.video.parent}")
    folder = RunFolder.open(command.run)
    if command.video is not None:
        render_off_screen()  # before MuJoCo is imported, which reads what this sets
    from sparserl.cli.run_config import load_policy, run_config

    config = run_config(folder)
    env = config.make_env(render_mode="human" if command.video is None else "rgb_array")
    agent, step = load_policy(folder, command.checkpoint, env)

    def act(observation: Any) -> Any:
        return agent.predict(observation, deterministic=True)[0]

    try:
        with nullcontext(_no_picture) if command.video is None else film(command.video, env) as add_picture:
            for episode in range(command.episodes):
                rewards = []
                with tqdm(total=command.max_steps, unit="step", disable=None) as bar:
                    for reward in play(env, act, seed=command.seed + episode, max_steps=command.max_steps):
                        rewards.append(reward)
                        add_picture()
                        bar.update()
                said = f"return {sum(rewards):.1f} in {len(rewards)} steps"
                print(f"episode {episode}: {said} (checkpoint of step {step:,})")
    except ConfigError:
        raise
    except Exception as error:  # a driver or a display that is not there, each with its own exception
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{config.env} could not be rendered here: {reason}") from None
    finally:
        env.close()
    if command.video is not None:
        print(f"wrote {command.video}")
    return 0


def _no_picture() -> None:
    """The window draws by itself."""
