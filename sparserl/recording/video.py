"""Episodes of a policy on film: played, rendered frame by frame, encoded as they come."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from sparserl.errors import ConfigError
from sparserl.extras import how_to_install
from sparserl.recording.episodes import ShouldStop, leave_if, longest_episode, never
from sparserl.recording.run_folder import step_name

Act = Callable[[Any], Any]
"""Observation -> action."""
SUFFIXES = (".mp4", ".gif")


def render_off_screen() -> None:
    """Lets MuJoCo render where there is no window system; before its first renderer is made."""
    if sys.platform == "linux" and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")


def check_display() -> None:
    """Finds out whether a window can be opened; without one, MuJoCo ends the process.

    Raises:
        ConfigError: If not.
    """
    advice = "give --video FILE.mp4 to have a film instead"
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ConfigError(f"there is no display here to open a window on; {advice}")
    with warnings.catch_warnings(), contextlib.suppress(ImportError):
        warnings.simplefilter("ignore")  # GLFW warns of what it then returns
        import glfw

        if not glfw.init():
            raise ConfigError(f"no window can be opened on the display {os.environ.get('DISPLAY', '')!r}; {advice}")


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
    """Gives a function that adds the present picture of an environment to a film; the file stays if nothing fails.

    Args:
        path: The film, .mp4 or .gif.
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
    try:
        import imageio.v2 as imageio

        writer = imageio.get_writer(path, **options[path.suffix])
    except (ImportError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"cannot write {path}: {reason}; {how_to_install('video')}") from None
    try:
        with closing(writer):  # its own context manager does not close it after an error
            yield lambda env: writer.append_data(np.asarray(env.render()))
    except BaseException:
        path.unlink(missing_ok=True)
        raise


class Camera:
    """Films an episode now and then, each on a new environment, so that nothing of training is touched.

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
        render_off_screen()
        try:
            self._try()
        except ConfigError:
            raise
        except Exception as error:  # a driver or a display that is not there, each with its own exception
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ConfigError(f"nothing can be filmed here ({reason}); leave --wandb.video-every-steps out") from None
        folder.mkdir(exist_ok=True)

    def _try(self) -> None:
        env = self._make_env(0)
        try:
            env.reset(seed=self._seed)
            with (
                tempfile.TemporaryDirectory() as folder,
                film(Path(folder) / "trial.mp4", frames_per_second(env)) as add_picture,
            ):
                add_picture(env)
        finally:
            env.close()

    def is_due(self, step: int) -> bool:
        """Whether an evaluation at this env step is the first after a multiple of `every_steps`."""
        return step % self._every < self._evaluate_every

    def __call__(self, act: Act, step: int, task: int = 0) -> Path:
        """Films a policy on a task; returns the film.

        Raises:
            EvaluationAbandoned: If `should_stop` says so; then there is no film.
        """
        path = self._folder / f"{step_name(step)}.mp4"
        env = self._make_env(task)
        try:
            with film(path, frames_per_second(env)) as add_picture:
                for _ in play(env, act, seed=self._seed, max_steps=longest_episode(env, None)):
                    leave_if(self.should_stop)
                    add_picture(env)
        finally:
            env.close()
        return path
