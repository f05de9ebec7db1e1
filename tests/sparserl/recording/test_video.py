"""Episodes on film: what is played, what stands in the file, and when nothing can be filmed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
import pytest
from support.filmed import FilmedEnv

from sparserl.errors import ConfigError
from sparserl.recording.episodes import EvaluationAbandoned
from sparserl.recording.rendering import drawing
from sparserl.recording.video import Camera, film, play

STILL = np.zeros(2, np.float32)


def made(folder: Path, env: Any = FilmedEnv, **options: Any) -> Camera:
    settings = {"every_steps": 100, "evaluate_every_steps": 50, "seed": 7, **options}
    return Camera(lambda task: env("rgb_array"), folder, **settings)


def pictures(path: Path) -> np.ndarray:
    """(N, 16, 16, 3) of a film."""
    words = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path, "-fps_mode", "passthrough", "-f", "rawvideo"]
    decoded = subprocess.run([*words, "-pix_fmt", "rgb24", "-"], capture_output=True, check=True).stdout
    return np.frombuffer(decoded, np.uint8).reshape(-1, 16, 16, 3)


def test_an_episode_is_played_to_its_end_or_cut() -> None:
    env = FilmedEnv(horizon=5)
    seen = []

    def act(observation: Any) -> Any:
        seen.append(observation)
        return STILL

    rewards = list(play(env, act, seed=3))
    first, _ = FilmedEnv().reset(seed=3)
    assert np.array_equal(seen[0], first)
    # Without an action the state shrinks by 0.9 a step, and the reward is minus its mean square.
    assert rewards == pytest.approx([-np.square(0.9**step * first).mean() for step in range(1, 6)])
    assert len(list(play(env, act, seed=3, max_steps=2))) == 2


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_film_has_a_picture_for_each_step(tmp_path: Path, suffix: str) -> None:
    path, env = tmp_path / f"film{suffix}", FilmedEnv("rgb_array")
    with film(path, 20) as add_picture:
        for _ in play(env, lambda _: STILL, seed=0):
            add_picture(env)
    brightness = pictures(path).mean(axis=(1, 2, 3))
    assert brightness == pytest.approx([40, 80, 120, 160, 200], abs=4)  # both encodings lose a little


def test_a_film_that_breaks_leaves_no_file(tmp_path: Path) -> None:
    env = FilmedEnv("rgb_array")
    env.reset(seed=0)

    def break_off() -> None:
        with film(tmp_path / "film.mp4", 20) as add_picture:
            add_picture(env)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    assert list(tmp_path.iterdir()) == []


def test_a_camera_films_what_the_policy_does(tmp_path: Path) -> None:
    camera = made(tmp_path / "videos")
    assert list((tmp_path / "videos").iterdir()) == []  # the trial went elsewhere
    path = camera(lambda _: STILL, 150)
    assert path == tmp_path / "videos" / "step-000000150.mp4"
    assert len(pictures(path)) == 5


def test_a_film_is_left_when_the_run_is_to_stop(tmp_path: Path) -> None:
    camera = made(tmp_path / "videos")
    asked = [False, False, True]
    camera.should_stop = lambda: asked.pop(0)
    with pytest.raises(EvaluationAbandoned):
        camera(lambda _: STILL, 150)
    assert list((tmp_path / "videos").iterdir()) == []
    assert asked == []


@pytest.mark.parametrize(("every", "due"), [(100, [0, 100, 200]), (50, [0, 50, 100, 150, 200]), (120, [0, 150])])
def test_films_are_due_at_the_first_evaluation_after_so_many_steps(tmp_path: Path, every: int, due: list[int]) -> None:
    camera = made(tmp_path / "videos", every_steps=every)
    assert [step for step in (0, 50, 100, 150, 200, 220) if camera.is_due(step)] == due


def test_films_are_due_after_long_rollouts_too(tmp_path: Path) -> None:
    camera = made(tmp_path / "videos", every_steps=500)
    assert [step for step in range(0, 2000, 160) if camera.is_due(step)] == [0, 640, 1120, 1600]


class Dark(FilmedEnv):
    def render(self) -> Any:
        raise RuntimeError("no display\nand a lot more")


def test_where_nothing_can_be_rendered_it_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^nothing can be filmed here \(no display\); leave --wandb\.video-every-steps out$"
    ):
        made(tmp_path / "videos", Dark)
    assert not (tmp_path / "videos").exists()


def no_encoder() -> str:
    raise RuntimeError("No ffmpeg exe could be found.")


@pytest.mark.parametrize("missing", ["the package", "its encoder"])
def test_without_the_extra_films_are_gifs_and_mp4_is_refused(
    tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "the package":
        monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    else:
        monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", no_encoder)
    line = r"pip install 'imageio\[ffmpeg\]>=2\.34', or name a \.gif, which needs nothing more$"
    with pytest.raises(ConfigError, match=line), film(tmp_path / "film.mp4", 20):
        pass
    assert list(tmp_path.iterdir()) == []
    path = made(tmp_path / "videos")(lambda _: STILL, 150)
    assert path.name == "step-000000150.gif"
    assert len(imageio.mimread(path)) == 5


class WithoutLibrary(FilmedEnv):
    def render(self) -> Any:
        raise OSError("libGL.so: cannot open shared object file")


@pytest.mark.parametrize(("env", "reason"), [(Dark, "no display"), (WithoutLibrary, "libGL.so: cannot open")])
def test_a_film_that_breaks_leaves_the_one_before(tmp_path: Path, env: Any, reason: str) -> None:
    path = tmp_path / "film.gif"
    path.write_bytes(b"before")
    line = rf"^it cannot be drawn \({reason}"
    with pytest.raises(ConfigError, match=line), drawing("it cannot be drawn"), film(path, 20) as add_picture:
        add_picture(env("rgb_array"))
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("film.gif", b"before")]
