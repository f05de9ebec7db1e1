"""What a figure shows."""

from __future__ import annotations

from matplotlib.axes import Axes


def lines_of(axis: Axes) -> dict[str, list[list[float]]]:
    """Label -> points; thin lines have labels that begin with an underscore."""
    return {str(line.get_label()): line.get_xydata().tolist() for line in axis.get_lines()}  # type: ignore[union-attr]
