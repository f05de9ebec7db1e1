"""A small env whose state can be saved, calls of compiled code, and figures that no file gets."""

from __future__ import annotations

from collections.abc import Iterator

import gymnasium as gym
import pytest
from matplotlib.figure import Figure
from support.calls import watch_calls
from support.envs import FunctionEnv

from sparserl.kernels.program import Call


@pytest.fixture
def tiny_env() -> Iterator[None]:
    """Registers `Tiny-v0`, whose state can be saved."""
    gym.register("Tiny-v0", entry_point=lambda: FunctionEnv(horizon=17))
    yield
    gym.registry.pop("Tiny-v0")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Calls of compiled code as they are made."""
    return watch_calls(monkeypatch)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures that plots of runs draw, instead of files."""
    figures: list[Figure] = []
    for module in ("curves", "learning", "matrix", "sequences", "topology"):
        monkeypatch.setattr(f"sparserl.plots.{module}.write_figure", lambda figure, out: figures.append(figure))
    return figures
