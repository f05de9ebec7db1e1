"""Importing what takes seconds: Ctrl-C ends the process quietly meanwhile, and what of MuJoCo is missing is said."""

from __future__ import annotations

import importlib
import os
import traceback
from types import ModuleType

from sparserl.errors import ConfigError
from sparserl.experiment.signals import leaving_at_once

GL = "MUJOCO_GL"
"""Environment variable that says what MuJoCo renders with."""


def load(name: str) -> ModuleType:
    """A module, imported now.

    MuJoCo loads what MUJOCO_GL names as soon as it is imported, and fails in many ways where that is not there.

    Raises:
        ConfigError: If that happens.
    """
    try:
        with leaving_at_once():
            return importlib.import_module(name)
    except Exception as error:
        names = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
        if GL in os.environ and any(name.partition(".")[0] == "mujoco" for name in names):
            raise ConfigError(f"MuJoCo cannot render with {GL}={os.environ[GL]} here ({error}); unset it") from error
        raise
