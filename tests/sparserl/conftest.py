"""A small env whose state can be saved."""

from __future__ import annotations

from collections.abc import Iterator

import gymnasium as gym
import pytest
from support.envs import FunctionEnv


@pytest.fixture
def tiny_env() -> Iterator[None]:
    """Registers `Tiny-v0`, whose state can be saved."""
    gym.register("Tiny-v0", entry_point=lambda: FunctionEnv(horizon=17))
    yield
    gym.registry.pop("Tiny-v0")
