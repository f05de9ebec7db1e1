"""Which inputs networks use, as bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sparserl.metrics.inputs import MEASURES, InputUse
from sparserl.plots.style import COLOURS, STYLE, write_figure

PANEL_WIDTH, BAR_HEIGHT = 2.9, 0.19
"""Inches."""
TITLES = {
    "attribution": "attribution: mean |d output / d input|",
    "strength": "strength: sum of |weights|",
    "degree": "connections",
}


@rc_context(STYLE)
def plot_inputs(
    uses: Sequence[InputUse], out: Path, title: str = "", *, top: int = 30, noise: Sequence[Sequence[bool]] = ()
) -> None:
    """Draws a row of panels for each network, a panel for each measure: its most used inputs, by attribution.

    Of a network that reads images a panel is the image, its channels added up.

    Args:
        uses: Of each network.
        out: Picture to write.
        title: Of the picture.
        top: Inputs of each network that are drawn.
        noise: Of each network which inputs are noise features, if it is known; they have another colour.

    Raises:
        ConfigError: If the picture cannot be written.
    """
    chosen = [use.order[:top] for use in uses]
    heights = [
        BAR_HEIGHT * len(inputs) + 0.7 if use.image is None else PANEL_WIDTH
        for use, inputs in zip(uses, chosen, strict=True)
    ]
    figure = Figure(figsize=(PANEL_WIDTH * len(MEASURES) + 0.8, sum(heights) + 0.6), layout="constrained")
    rows = figure.subplots(len(uses), len(MEASURES), squeeze=False, height_ratios=heights)
    for row, (axes, use, inputs) in enumerate(zip(rows, uses, chosen, strict=True)):
        if use.image is not None:
            for axis, measure in zip(axes, MEASURES, strict=True):
                drawn = axis.imshow(use.picture(measure).sum(axis=0), cmap="cividis")
                figure.colorbar(drawn, ax=axis, shrink=0.8)
                axis.set_title(f"{use.network}: {TITLES[measure]}", fontsize="small")
                axis.grid(visible=False)
            continue
        is_noise = np.array(noise[row] if noise else [False] * len(use.names))[inputs]
        colours = [COLOURS[1] if one else COLOURS[0] for one in is_noise]
        for axis, measure in zip(axes, MEASURES, strict=True):
            axis.barh(range(len(inputs)), getattr(use, measure)[inputs], color=colours)
            axis.invert_yaxis()
            axis.set_yticks(range(len(inputs)), [use.names[at] for at in inputs] if measure == MEASURES[0] else [])
            axis.tick_params(axis="y", labelsize="small", length=0)
            axis.grid(visible=False, axis="y")
            axis.set_title(f"{use.network}: {TITLES[measure]}", fontsize="small")
    if any(map(any, noise)):
        handles = [Patch(color=COLOURS[0], label="of the environment"), Patch(color=COLOURS[1], label="noise")]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(title)
    write_figure(figure, out)
