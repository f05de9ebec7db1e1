"""Pictures of what the topology of a run did, from its `topology.csv` and topology snapshots alone.

Decides how a topology is drawn. What a run did not record is left out: columns that an older run lacks, snapshots that
were not kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.animation import PillowWriter
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from sparserl.errors import ConfigError, unknown_name
from sparserl.metrics.connectivity import chains, effective_connections, fan_in, fan_out, overlap
from sparserl.plots.style import (
    COLOURS,
    DEFAULT,
    STYLE,
    LineStyle,
    PictureOptions,
    line_styles,
    write_figure,
    writing,
)
from sparserl.recording.run_logs import Columns, Curve, FloatArray, layer_columns
from sparserl.recording.snapshots import snapshot_files, snapshot_layers, snapshot_step, snapshot_topology
from sparserl.topology.structure import Positions, SparseTopology

ABSENT, INITIAL, GROWN = 0, 1, 2
CONNECTIVITY_COLOURS = ("#FFFFFF", *COLOURS[:2])
DEGREE_COLOURS = "viridis"
MAX_PIXELS = 512
MAX_PICTURES = 6
MAX_FRAMES = 60
GIF_SECONDS = 8
PERCENTILES = (10, 90)
TIME = "env steps"
PANELS_A_ROW = 4
PANEL_WIDTH = 3.75


# What the topology of a run did.


@dataclass(frozen=True)
class Panel:
    """A curve of each layer over time.

    Attributes:
        name: Column of `topology.csv`.
        title: What it says.
        unit: Of the vertical axis.
        share: Whether it is a share, from 0 to 1.
    """

    name: str
    title: str
    unit: str
    share: bool = True


EFFECTIVE = "effective"
PANELS = (
    Panel("density", "density", "share of the dense layer"),
    Panel("explored_fraction", "explored: ever connected", "share of the dense layer"),
    Panel("initial_overlap", "overlap with the initial topology", "share of the first connections"),
    Panel(EFFECTIVE, "effective: on a path from input to output", "share of the connections"),
    Panel("neurons_without_inputs", "outputs without connections", "output neurons", share=False),
    Panel("neurons_without_outputs", "inputs without connections", "input neurons", share=False),
    Panel("dormant", "dormant neurons", "share of the output neurons"),
)


@dataclass(frozen=True)
class Moment:
    """What a snapshot says of a layer.

    Attributes:
        step: Env step of the snapshot.
        n_in: Number of input neurons.
        fan_in: (2,) `PERCENTILES` over the output neurons.
        fan_out: (2,) likewise over the input neurons.
        degrees: (rows,) connections of each input neuron; where there are many, their mean over neighbours.
        effective: Share of the connections that are on a path from an input to an output of the network.
    """

    step: int
    n_in: int
    fan_in: FloatArray
    fan_out: FloatArray
    degrees: FloatArray
    effective: float


@rc_context(STYLE)
def plot_topology(path: Path, out: Path, title: str = "", options: PictureOptions = DEFAULT) -> None:
    """Draws what the topology of a run did, layer by layer.

    Above, curves over env steps (`PANELS`). Below, for each layer, the distribution of fan-in and of fan-out (mean and
    range from `topology.csv`, percentiles from snapshots) and the fan-out of each input neuron.

    Args:
        path: Run folder.
        out: Picture to write.
        title: Of the picture.
        options: Likewise; of them the size.

    Raises:
        ConfigError: If the run has no sparse layer, or the picture cannot be written.
        CheckpointError: If a snapshot is damaged.
    """
    logged = layer_columns(path)
    moments = layer_moments(snapshot_files(path))
    curves = {panel: _curves(panel.name, logged, moments) for panel in PANELS}
    panels = [panel for panel in PANELS if curves[panel]]
    detailed = [layer for layer in logged if layer in moments or "fan_in_mean" in logged[layer]]
    n_columns = min(PANELS_A_ROW, len(panels) + 1)  # one more for the legend
    n_rows = -(-(len(panels) + 1) // n_columns)
    heights = [2.6 * n_rows, 2.3 * len(detailed) + 0.4] if detailed else [2.6 * n_rows]
    width = PANEL_WIDTH * (PANELS_A_ROW if detailed else n_columns)
    figure = Figure(figsize=options.size or (width, sum(heights) + 0.4), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    axes = list(parts[0].subplots(n_rows, n_columns, squeeze=False).flat)
    for panel, axis in zip(panels, axes, strict=False):
        _draw_panel(axis, panel, curves[panel], line_styles(logged))
    for axis in axes[len(panels) :]:
        axis.axis("off")
    axes[len(panels)].legend(
        *axes[0].get_legend_handles_labels(), loc="center", fontsize="small", title="layer", handlelength=3
    )
    if detailed:
        rows = parts[1].subplots(len(detailed), 3, squeeze=False)
        for axes, layer in zip(rows, detailed, strict=True):
            _draw_layer(axes, layer, logged[layer], moments.get(layer, []))
        legends = [zip(*axis.get_legend_handles_labels(), strict=True) for axis in rows[:, :2].flat]
        handles = {label: handle for legend in legends for handle, label in legend}
        parts[1].legend(list(handles.values()), list(handles), loc="outside lower center", ncols=5, fontsize="small")
    last = max(float(steps[-1]) for of_layers in curves.values() for steps, _ in of_layers.values())
    for axis in (one for part in parts for one in part.axes if one.get_xlabel() == TIME and last > 0):
        axis.set_xlim(0, last)  # some are measured at events alone
    figure.suptitle(title)
    write_figure(figure, out)


def layer_moments(files: Sequence[Path]) -> dict[str, list[Moment]]:
    """What the snapshots of a run say of each layer, by full name; nothing without snapshots."""
    names = snapshot_layers(files[0]) if files else []
    moments: dict[str, list[Moment]] = {name: [] for name in names}
    for chain in chains(names).values():
        for file in files:
            topologies = {name: snapshot_topology(file, name) for name in chain if name in moments}
            effective = effective_connections([topologies.get(name) for name in chain])
            for (name, topology), count in zip(topologies.items(), effective, strict=True):
                moments[name].append(_moment(snapshot_step(file), topology, count))
    return moments


def _moment(step: int, topology: SparseTopology, effective: int) -> Moment:
    degrees = fan_out(topology)
    borders = np.linspace(0, degrees.size, min(degrees.size, MAX_PIXELS) + 1).astype(int)
    return Moment(
        step,
        topology.n_in,
        np.percentile(fan_in(topology), PERCENTILES),
        np.percentile(degrees, PERCENTILES),
        np.add.reduceat(degrees, borders[:-1]) / np.diff(borders),
        effective / max(1, topology.nnz),
    )


def _curves(name: str, logged: Mapping[str, Columns], moments: Mapping[str, Sequence[Moment]]) -> dict[str, Curve]:
    """Env steps and values of a panel, of each layer of which they are known."""
    if name == EFFECTIVE:
        return {
            layer: (np.array([one.step for one in of_layer], float), np.array([one.effective for one in of_layer]))
            for layer, of_layer in moments.items()
        }
    known = {layer: ~np.isnan(columns[name]) for layer, columns in logged.items() if name in columns}
    return {
        layer: (logged[layer]["global_step"][rows], logged[layer][name][rows])
        for layer, rows in known.items()
        if rows.any()
    }


def _draw_panel(axis: Axes, panel: Panel, curves: Mapping[str, Curve], layers: Mapping[str, LineStyle]) -> None:
    for layer, (steps, values) in curves.items():
        axis.plot(steps, values, **layers[layer].of_line(len(steps)), label=layer)
    if panel.share:
        axis.set_ylim(-0.03, 1.03)
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    else:
        highest = max(1.0, *(values.max() for _, values in curves.values()))
        axis.set_ylim(-0.03 * highest, 1.05 * highest)
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    _label(axis, panel.title, panel.unit)


def _label(axis: Axes, title: str, unit: str) -> None:
    axis.set_title(title, fontsize="medium")
    axis.set_xlabel(TIME)
    axis.set_ylabel(unit)
    axis.set_xlim(left=0)
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))


def _draw_layer(axes: Sequence[Axes], layer: str, columns: Columns, moments: Sequence[Moment]) -> None:
    neuron = "feature" if layer.endswith(".0") else "neuron"  # what the first layer of a network reads
    _draw_degrees(axes[0], "fan_in", columns, moments)
    _label(axes[0], f"{layer}: fan-in", "connections of an\noutput neuron")
    _draw_degrees(axes[1], "fan_out", columns, moments)
    for name, colour in (("degree_relevant", COLOURS[2]), ("degree_irrelevant", COLOURS[1])):
        if name in columns and not np.isnan(columns[name]).all():
            known = ~np.isnan(columns[name])
            label = f"mean, {name.removeprefix('degree_')} features"
            axes[1].plot(columns["global_step"][known], columns[name][known], "--", color=colour, label=label)
    _label(axes[1], f"{layer}: fan-out", f"connections of an\ninput {neuron}")
    for axis in axes[:2]:
        axis.set_ylim(bottom=0)
    if not moments:
        axes[2].axis("off")
        return
    steps = np.array([moment.step for moment in moments], float)
    borders = np.concatenate([steps[:1], (steps[1:] + steps[:-1]) / 2, steps[-1:] + (len(steps) == 1)])
    degrees = np.stack([moment.degrees for moment in moments], axis=1)
    rows = np.linspace(0, moments[0].n_in, len(degrees) + 1)
    mesh = axes[2].pcolormesh(borders, rows, degrees, cmap=DEGREE_COLOURS, vmin=0)
    axes[2].invert_yaxis()
    axes[2].figure.colorbar(mesh, ax=axes[2], label="connections")
    _label(axes[2], f"{layer}: fan-out of each input {neuron}", f"input {neuron}")
    axes[2].grid(visible=False)


def _draw_degrees(axis: Axes, name: str, columns: Columns, moments: Sequence[Moment]) -> None:
    colour = COLOURS[0]
    if f"{name}_mean" in columns:
        known = ~np.isnan(columns[f"{name}_mean"])
        steps, lowest, mean, highest = (
            columns[column][known] for column in ("global_step", f"{name}_min", f"{name}_mean", f"{name}_max")
        )
        axis.fill_between(steps, lowest, highest, color=colour, alpha=0.15, linewidth=0, label="least to most")
        axis.plot(steps, mean, color=colour, label="mean")
    if moments:
        low, high = np.stack([getattr(moment, name) for moment in moments], axis=1)
        label = "{} % to {} % of the neurons".format(*PERCENTILES)
        axis.fill_between(
            [moment.step for moment in moments], low, high, color=colour, alpha=0.3, linewidth=0, label=label
        )


# Which connections a layer has.


@rc_context(STYLE)
def plot_connectivity(path: Path, layer: str, out: Path, options: PictureOptions = DEFAULT) -> None:
    """Draws which connections a layer has at some moments of a run: those of the start, and those grown since.

    A layer of more than 512 neurons a side is binned; a pixel then shows the newest kind of connection in it.

    Args:
        path: Run folder.
        layer: Full name, e.g. `critic.qf0.1`.
        out: Picture to write.
        options: Of them the size.

    Raises:
        ConfigError: If the run has no snapshots or no such layer, or the picture cannot be written.
        CheckpointError: If a snapshot is damaged.
    """
    files = _spread(_snapshots_of(path, layer), MAX_PICTURES)
    first = snapshot_topology(files[0], layer)
    figure = Figure(figsize=options.size or (3.2 * len(files), 4.2), layout="constrained")
    panels = figure.subplots(1, len(files), sharex=True, sharey=True, squeeze=False)[0]
    for axis, file in zip(panels, files, strict=True):
        present = snapshot_topology(file, layer)
        _show(axis, present, first.flat)
        axis.set_title("\n".join(_caption(file, present, first.flat)), fontsize="small")
        axis.set_xlabel("input neuron")
    panels[0].set_ylabel("output neuron")
    _add_legend(figure)
    figure.suptitle(f"{layer} ({first.n_out} x {first.n_in})")
    write_figure(figure, out)


@rc_context(STYLE)
def animate_connectivity(path: Path, layer: str, out: Path, options: PictureOptions = DEFAULT) -> None:
    """Draws the same as `plot_connectivity` as an animated GIF, a snapshot a frame, with the step in the title.

    Of more than 60 snapshots, 60 are shown. The last one stays for two seconds.

    Args:
        path: Run folder.
        layer: Full name, e.g. `critic.qf0.1`.
        out: GIF to write.
        options: Of them the size.

    Raises:
        ConfigError: If the run has no snapshots or no such layer, or the picture cannot be written.
        CheckpointError: If a snapshot is damaged.
    """
    files = _spread(_snapshots_of(path, layer), MAX_FRAMES)
    first = snapshot_topology(files[0], layer)
    figure = Figure(figsize=options.size or (5.2, 6), layout="constrained")
    axis = figure.subplots()
    image = _show(axis, first, first.flat)
    axis.set_xlabel("input neuron")
    axis.set_ylabel("output neuron")
    _add_legend(figure)
    frames_per_second = max(1, len(files) // GIF_SECONDS)
    writer = PillowWriter(fps=frames_per_second)
    with writing(out) as path, writer.saving(figure, str(path), dpi=100):
        for file in [*files, *files[-1:] * (2 * frames_per_second - 1)]:
            present = snapshot_topology(file, layer)
            image.set_data(_picture(present, first.flat))
            step, *counts = _caption(file, present, first.flat)
            axis.set_title(f"{layer} ({first.n_out} x {first.n_in}), {step}\n{', '.join(counts)}", fontsize="medium")
            writer.grab_frame()


def _snapshots_of(path: Path, layer: str) -> list[Path]:
    files = snapshot_files(path)
    if not files:
        raise ConfigError(f"{path} has no topology snapshots (a dense run has none)")
    layers = snapshot_layers(files[0])
    if layer not in layers:
        raise ConfigError(unknown_name("layer", layer, layers))
    return files


def _spread(files: Sequence[Path], count: int) -> list[Path]:
    """At most `count` files, the first and the last among them."""
    indices = np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int)
    return [files[index] for index in indices]


def _caption(file: Path, present: SparseTopology, initial: Positions) -> tuple[str, str, str]:
    return (
        f"step {snapshot_step(file):,}",
        f"{present.nnz:,} connections",
        f"{overlap(present, initial):.0%} of the first",
    )


def _show(axis: Axes, present: SparseTopology, initial: Positions) -> AxesImage:
    axis.grid(visible=False)
    return axis.imshow(
        _picture(present, initial),
        cmap=ListedColormap(list(CONNECTIVITY_COLOURS)),
        vmin=ABSENT,
        vmax=GROWN,
        aspect="auto",
        interpolation="nearest",
        extent=(0, present.n_in, present.n_out, 0),
    )


def _add_legend(figure: Figure) -> None:
    handles = [
        Patch(color=CONNECTIVITY_COLOURS[kind], label=text)
        for kind, text in ((INITIAL, "since the start"), (GROWN, "grown"))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)


def _picture(present: SparseTopology, initial: Positions) -> Positions:
    """What each pixel shows: `ABSENT`, `INITIAL` or `GROWN`."""
    height, width = min(present.n_out, MAX_PIXELS), min(present.n_in, MAX_PIXELS)
    kind = np.where(np.isin(present.flat, initial, assume_unique=True), INITIAL, GROWN)
    picture = np.full((height, width), ABSENT)
    rows, columns = present.outputs * height // present.n_out, present.inputs * width // present.n_in
    np.maximum.at(picture, (rows, columns), kind)
    return picture
