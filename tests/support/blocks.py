"""Forces the choice of kernels, which otherwise follows from a layer's connections and the CPU."""

from __future__ import annotations

import pytest

from sparserl.kernels import choice


def force_blocks(monkeypatch: pytest.MonkeyPatch, panel: int) -> None:
    """Every layer with rows enough goes by blocks, in panels of so many columns."""
    monkeypatch.setattr(choice, "takes_blocks", lambda n_rows, n_cols, nnz, shared: n_rows >= choice.BLOCK_ROWS)
    monkeypatch.setattr(choice, "block_panel", lambda n_cols, density: panel)


def force_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """No layer goes by blocks."""
    monkeypatch.setattr(choice, "takes_blocks", lambda n_rows, n_cols, nnz, shared: False)
