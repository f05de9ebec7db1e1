"""Episodes of a policy on film: played, rendered frame by frame, encoded as they come."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from sparserl.errors import ConfigError
from sparserl.extras import how_to_install
from sparserl.recording.episodes import ShouldStop, leave_if, longest_episode, never
from sparserl.recording.rendering import drawing, render_off_screen
from sparserl.recording.run_folder import step_name
from sparserl.written_files import replacing

Act = Callable[[Any], Any]
"""Observation -> action."""
SUFFIXES = (".mp4", ".gif")


def play(env: gym.Env[Any, Any], act: Act, *, seed: int, max_steps: int | None = None) -> Iterator[float]:
    """Plays an episode and gives the reward of each step, when the environment has taken it.

    Args:
        env: Where.
        act: The policy.
        seed: Of the reset.
        max_steps: Stops the episode then.
    """
    observation, _ = env.reset(seed=seed)
    for step in itertools.count(1):
        observation, reward, terminated, truncated, _ = env.step(act(observation))
        yield float(reward)
        if terminated or truncated or step == max_steps:
            return


def frames_per_second(env: gym.Env[Any, Any]) -> int:
    """How fast an environment wants to be shown."""
    return int(env.metadata.get("render_fps", 30))


@contextmanager
def film(path: Path, fps: int) -> Iterator[Callable[[gym.Env[Any, Any]], None]]:
    """Gives a function that adds the present picture of an environment to a film; the file is there if nothing fails.

    Args:
        path: The film, .mp4 or .gif. A GIF needs nothing more; what encodes MP4 is some 70 MB, and an extra.
        fps: Pictures per second.

    Yields:
        Takes environments made with render mode `rgb_array`, whose pictures are of one size.

    Raises:
        ConfigError: If it cannot be written, or what encodes it is not installed.
    """
    # A GIF is timed in milliseconds a frame; H.264 alone is asked not to round the picture's size up.
    options: dict[str, dict[str, Any]] = {
        ".gif": {"duration": 1000 / fps, "loop": 0},
        ".mp4": {"fps": fps, "macro_block_size": 1},
    }
    if path.suffix == ".mp4" and not can_encode_mp4():
        raise ConfigError(f"cannot write {path}: {how_to_install('video')}, or name a .gif, which needs nothing more")
    import imageio.v2 as imageio  # here, for no run waits for it that films nothing

    with replacing(path) as temporary:
        try:
            writer = imageio.get_writer(temporary, **options[path.suffix])
        except (ValueError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"cannot write {path}: {reason}") from None
        with closing(writer):  # its own context manager does not close it after an error
            yield lambda env: writer.append_data(_picture(env))


def _picture(env: gym.Env[Any, Any]) -> np.ndarray:
    """What an environment looks like; an OSError of a library that draws it is none of the file that is written."""
    try:
        return np.asarray(env.render())
    except OSError as error:
        raise RuntimeError(str(error)).with_traceback(error.__traceback__) from None


def can_encode_mp4() -> bool:
    """Whether the extra that encodes MP4 is installed, with its encoder or one of the machine."""
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return False
    return True


class Camera:
    """Films an episode now and then, each on a new environment, so that nothing of training is touched; as MP4 where
    that can be encoded, or else as GIF.

    Args:
        make_env: Makes an environment that renders to arrays, of a task.
        folder: Films go there.
        every_steps: Env steps between films.
        evaluate_every_steps: Env steps between evaluations, at which films are made.
        seed: Of the reset of each episode.

    Attributes:
        should_stop: Asked after each step.

    Raises:
        ConfigError: If this machine cannot render or encode; found out at once, with a film of one picture.
    """

    def __init__(
        self,
        make_env: Callable[[int], gym.Env[Any, Any]],
        folder: Path,
        *,
        every_steps: int,
        evaluate_every_steps: int,
        seed: int,
    ):
        self._make_env, self._folder, self._seed = make_env, folder, seed
        self.should_stop: ShouldStop = never
        self._every, self._evaluate_every = every_steps, evaluate_every_steps
        self._asked: int | None = None
        render_off_screen()
        self._suffix = ".mp4" if can_encode_mp4() else ".gif"
        with drawing("nothing can be filmed here", "leave --wandb.video-every-steps out"):
            self._try()
        folder.mkdir(exist_ok=True)

    def _try(self) -> None:
        env = self._make_env(0)
        try:
            env.reset(seed=self._seed)
            with (
                tempfile.TemporaryDirectory() as folder,
                film(Path(folder) / f"trial{self._suffix}", frames_per_second(env)) as add_picture,
            ):
                add_picture(env)
        finally:
            env.close()

    def is_due(self, step: int) -> bool:
        """Whether an evaluation at this env step is the first after a multiple of `every_steps`; asked at each."""
        before, self._asked = self._asked, step
        if before is None:  # the first of this process
            return step % self._every < self._evaluate_every
        return step // self._every > before // self._every

    def __call__(self, act: Act, step: int, task: int = 0) -> Path:
        """Films a policy on a task; returns the film.

        Raises:
            EvaluationAbandoned: If `should_stop` says so; then there is no film.
        """
        path = self._folder / f"{step_name(step)}{self._suffix}"
        env = self._make_env(task)
        try:
            with film(path, frames_per_second(env)) as add_picture:
                for _ in play(env, act, seed=self._seed, max_steps=longest_episode(env, None)):
                    leave_if(self.should_stop)
                    add_picture(env)
        finally:
            env.close()
        return path
