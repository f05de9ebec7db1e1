"""Drawing environments on machines that may have no display: what MuJoCo draws with, and what to do where it cannot.

MuJoCo loads what MUJOCO_GL names as soon as it is imported, so that this module imports neither it nor Gymnasium.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from sparserl.errors import ConfigError, SparserlError, one_line

GL, OPENGL = "MUJOCO_GL", "PYOPENGL_PLATFORM"
"""Environment variables that say what MuJoCo and PyOpenGL draw with; they must agree."""
HOW_TO_DRAW = f"set {GL}=egl (Debian: libegl1 libgl1-mesa-dri) or {GL}=osmesa (libosmesa6), which need no display"
LONGEST_REASON = 150
"""Characters of what a library says, so that the line has room for what to do."""


def render_off_screen() -> None:
    """Lets MuJoCo render where no window can be opened, unless `GL` says with what; before MuJoCo is imported."""
    if sys.platform == "linux" and GL not in os.environ and display_problem() is not None:
        os.environ[GL] = os.environ.get(OPENGL, "egl")


def display_problem() -> str | None:
    """Why no window can be opened here; None if one can, or if nobody can tell before it is tried."""
    if sys.platform != "linux":
        return None
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not display:
        return "there is no display here to open a window on"
    with warnings.catch_warnings(), contextlib.suppress(ImportError):
        warnings.simplefilter("ignore")  # GLFW warns of what it then returns
        import glfw

        if not glfw.init():
            return f"no window can be opened on the display {display!r}"
    return None


def check_display() -> None:
    """Finds out whether a window can be opened; without one, MuJoCo ends the process.

    Raises:
        ConfigError: If not.
    """
    problem = display_problem()
    if problem is not None:
        raise ConfigError(f"{problem}; give --video FILE.mp4 or FILE.gif to have a film instead")


def is_of_mujoco(error: BaseException) -> bool:
    """Whether MuJoCo was at work when an error arose."""
    frames = traceback.walk_tb(error.__traceback__)
    names = (str(frame.f_globals.get("__name__", "")) for frame, _ in frames)
    return any(name.partition(".")[0] == "mujoco" or ".mujoco" in name for name in names)


@contextmanager
def drawing(what: str, otherwise: str = "") -> Iterator[None]:
    """Turns whatever keeps an environment from being drawn, a driver or a display, into one line that says what to do.

    Args:
        what: Of which the line speaks.
        otherwise: What else one can do.

    Raises:
        ConfigError: In place of errors that are none of this suite.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="glfw")  # of what then fails
        try:
            yield
        except SparserlError:
            raise
        except Exception as error:
            reason = one_line((str(error) or type(error).__name__).splitlines()[0], LONGEST_REASON)
            ways = ", or ".join(filter(None, (HOW_TO_DRAW if is_of_mujoco(error) else "", otherwise)))
            _let_go(error)
            raise ConfigError(f"{what} ({reason})" + (f"; {ways}" if ways else "")) from None


def _let_go(error: BaseException) -> None:
    """Ends what an error holds; renderers that were only half made complain of that on the screen."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
    finally:
        sys.unraisablehook = hook
