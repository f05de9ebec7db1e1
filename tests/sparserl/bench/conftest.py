"""Benchmarks in miniature."""

from __future__ import annotations

import pytest

from sparserl.bench import contenders


@pytest.fixture(autouse=True)
def few_transitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay buffer of 100 transitions in 200 places."""
    monkeypatch.setattr(contenders, "TRANSITIONS", 100)
