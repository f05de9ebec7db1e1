"""`sparserl enjoy`: shows a run's policy in a window, or writes a video."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sparserl.cli.arguments import WhichCheckpoint, parse
from sparserl.errors import ConfigError
from sparserl.records import RunFolder


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
    if command.video is not None and command.video.suffix not in (".mp4", ".gif"):
        raise ConfigError(f"--video must end in .mp4 or .gif, got {command.video}")
    if command.video is not None and not command.video.parent.is_dir():
        raise ConfigError(f"cannot write {command.video}: there is no folder {command.video.parent}")
    folder = RunFolder.open(command.run)
    if command.video is not None and sys.platform == "linux" and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")  # read when MuJoCo is imported: no window system, so off-screen
    from sparserl.cli.run_config import load_policy, run_config

    config = run_config(folder)
    env = config.make_env(render_mode="human" if command.video is None else "rgb_array")
    agent, step = load_policy(folder, command.checkpoint, env)
    frames: list[Any] = []
    try:
        for episode in range(command.episodes):
            obs, _ = env.reset(seed=command.seed + episode)
            episode_return, length, over = 0.0, 0, False
            with tqdm(total=command.max_steps, unit="step", disable=None) as bar:
                while not over:
                    action, _ = agent.predict(obs, deterministic=True)
                    obs, reward, terminated, truncated, _ = env.step(action)
                    episode_return += float(reward)
                    length += 1
                    over = terminated or truncated or length == command.max_steps
                    if command.video is not None:
                        frames.append(env.render())
                    bar.update()
            print(f"episode {episode}: return {episode_return:.1f} in {length} steps (checkpoint of step {step:,})")
        fps = int(env.metadata.get("render_fps", 30))
    except Exception as error:  # a driver, a display or an encoder that is not there, each with its own exception
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{config.env} could not be rendered here: {reason}") from None
    finally:
        env.close()
    if command.video is not None:
        _write_video(command.video, frames, fps)
        print(f"wrote {command.video}")
    return 0


def _write_video(path: Path, frames: list[Any], fps: int) -> None:
    try:
        import imageio

        # A GIF is timed in milliseconds a frame; H.264 alone is asked not to round the picture's size up.
        gif: dict[str, Any] = {"duration": 1000 / fps, "loop": 0}
        mp4: dict[str, Any] = {"fps": fps, "macro_block_size": 1}
        imageio.mimsave(path, frames, **(gif if path.suffix == ".gif" else mp4))
    except (ImportError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"cannot write {path}: {reason}; install sparserl[video]") from None
