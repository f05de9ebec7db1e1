"""What tests of sequences share."""

from __future__ import annotations

from sparserl.envs import (
    RLSequence,
    WrapperConfig,
    build_rl_sequence,
)

PLAIN = WrapperConfig()


def build(name: str, seed: int = 0, n_tasks: int | None = None) -> RLSequence:
    return build_rl_sequence(name, seed=seed, steps=100, n_tasks=n_tasks)
