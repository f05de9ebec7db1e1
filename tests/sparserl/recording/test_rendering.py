"""Drawing without a display: what is drawn with, and the one line where nothing can be drawn."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sparserl.errors import ConfigError
from sparserl.recording.rendering import GL, HOW_TO_DRAW, check_display, display_problem, drawing, render_off_screen

DRAW = """
from sparserl.experiment.program import exit_status, load
from sparserl.recording.rendering import drawing, render_off_screen

def draw():
    render_off_screen()
    envs = load("sparserl.envs")
    with drawing("Reacher-v5 cannot be drawn"):
        env = envs.make_env("Reacher-v5", render_mode="rgb_array")
        env.reset(seed=0)
        print(env.render().shape)
    return 0

raise SystemExit(exit_status(draw))
"""


def drawn_with(**environ: str) -> tuple[int, str, list[str]]:
    """Exit status, what was drawn, and lines of complaint of a process without a display that draws an environment."""
    without = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY", GL)}
    done = subprocess.run([sys.executable, "-c", DRAW], env=without | environ, capture_output=True, text=True)
    return done.returncode, done.stdout.strip(), done.stderr.splitlines()


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"MUJOCO_GL": "nonsense"}, "MuJoCo cannot draw with MUJOCO_GL=nonsense here"),
        ({"MUJOCO_GL": "off"}, "got 'off'"),
        ({"MUJOCO_GL": "glfw"}, "Reacher-v5 cannot be drawn"),
        ({"MUJOCO_GL": "glfw", "DISPLAY": ":77"}, "Reacher-v5 cannot be drawn"),
        ({"MUJOCO_GL": "egl", "__EGL_VENDOR_LIBRARY_FILENAMES": "/no/such/file"}, ""),
        ({"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "osmesa"}, "PYOPENGL_PLATFORM"),
    ],
    ids=lambda value: " ".join(value.values()) if isinstance(value, dict) else None,
)
def test_where_nothing_can_be_drawn_one_line_says_what_to_do(environ: dict[str, str], reason: str) -> None:
    status, drawn, (line,) = drawn_with(**environ)
    assert (status, drawn) == (2, "")
    assert reason in line
    assert line.endswith(HOW_TO_DRAW)
    assert len(line) <= 300 + len("sparserl: ")


@pytest.mark.parametrize(
    ("environ", "gl"),
    [
        ({}, "egl"),
        ({"PYOPENGL_PLATFORM": "osmesa"}, "osmesa"),  # which must agree
        ({"DISPLAY": ":77"}, "egl"),  # where nobody listens
        ({"MUJOCO_GL": "glfw"}, "glfw"),  # as the user says
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere windows can always be opened")
def test_without_a_display_pictures_are_drawn_off_screen(
    environ: dict[str, str], gl: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(GL, "")  # so that it is as before afterwards
    for name in ("DISPLAY", "WAYLAND_DISPLAY", GL):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    render_off_screen()
    assert os.environ[GL] == gl


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere windows can always be opened")
def test_a_window_is_refused_where_there_is_no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"there is no display .* give --video FILE.mp4 or FILE.gif"):
        check_display()
    monkeypatch.setenv("DISPLAY", ":77")
    assert display_problem() == "no window can be opened on the display ':77'"


def test_errors_of_this_suite_and_of_other_libraries_keep_their_words() -> None:
    with pytest.raises(ConfigError, match=r"^as it is$"), drawing("it cannot be drawn"):
        raise ConfigError("as it is")
    line = r"^it cannot be drawn \(no font\); use another$"
    with pytest.raises(ConfigError, match=line), drawing("it cannot be drawn", "use another"):
        raise RuntimeError("no font\nand a lot more")
