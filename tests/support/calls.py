"""Calls of compiled code, as they are made."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from sparserl.kernels import program


class Call(NamedTuple):
    """One call: how many steps it runs, and in how many shares the most divisible of them can be done at once."""

    steps: int
    shares: int


def watch_calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """A list to which every call adds itself from now on."""
    found: list[Call] = []
    run = program._run

    def spy(rows: list[int], shares: int, zero: object) -> None:
        found.append(Call(len(rows) // 3, shares))
        run(rows, shares, zero)

    monkeypatch.setattr(program, "_run", spy)
    return found
