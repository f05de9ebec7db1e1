"""Calls of compiled code, as they are made."""

from __future__ import annotations

import pytest

from sparserl.kernels.program import Call


def watch_calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """A list to which every call adds itself from now on."""
    found: list[Call] = []
    run = Call.__call__

    def spy(call: Call) -> None:
        found.append(call)
        run(call)

    monkeypatch.setattr(Call, "__call__", spy)
    return found
