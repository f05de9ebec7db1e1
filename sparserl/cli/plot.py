"""`sparserl plot`: learning curves and topology, accuracies of classifiers, or the connections of a layer."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from sparserl.cli.arguments import parse
from sparserl.cli.options import Positional
from sparserl.errors import ConfigError, shown, unknown_name
from sparserl.experiment.recorded_run import RunConfig
from sparserl.experiment.run_config import (
    KINDS_OF_RUNS,
    continual_config,
    fit_config,
    kind_in,
    recorded_config,
    rl_continual_config,
    run_config,
)
from sparserl.plots.curves import plot_runs
from sparserl.plots.fits import plot_fit, plot_fits
from sparserl.plots.learning import plot_learning
from sparserl.plots.matrix import plot_sequence_run, plot_sequence_runs
from sparserl.plots.sequences import plot_rl_run, plot_rl_runs
from sparserl.plots.style import FORMATS, PictureOptions, Run, check_ending
from sparserl.plots.topology import animate_connectivity, plot_connectivity, plot_topology
from sparserl.ranges import Range, check_ranges
from sparserl.recording.evaluations import accuracy_curve
from sparserl.recording.metrics_table import AGENTS, Kind
from sparserl.recording.run_folder import RunFolder
from sparserl.recording.run_logs import check_returns, read_columns
from sparserl.recording.settings import settings
from sparserl.report.folders import each_readable, find_runs, is_finished, refuse_if_all_broken
from sparserl.report.seed_groups import differing_keys, seed_groups, short_keys
from sparserl.written_files import check_writable

INCHES = Range("[1, 50]")
"""Of a side of a picture; one of 50 has 10,000 dots."""


@dataclass(frozen=True)
class PlotCommand:
    """Draw return, density and explored fraction over env steps; or what the topology of one run did; or the accuracies
    and connections of a continual run; or the accuracies of several. Runs that differ in the seed alone are one curve:
    their mean, with its 95 % bootstrap interval; each env, data set or task sequence has panels of its own; an
    unfinished run is drawn as far as it is, and the legend says so; of several, one that cannot be read is named and
    left out."""

    runs: Annotated[tuple[Path, ...], Positional()]
    """Run folders, or folders that hold them."""
    out: Path = Path("plot.png")
    """Picture to write; the ending decides the format: .png, .svg or .pdf."""
    x: str = "steps"
    """What runs of `sparserl train` are drawn over: steps of the env, flops of training, seconds of wall time, or those
    of cpu alone."""
    y: str | None = None
    """What is drawn of them, alone: return, or a column of progress.csv, e.g. topology/density."""
    group: tuple[str, ...] = ()
    """Keys of the config that tell curves apart, e.g. algo topology.density. If none is given, everything but the seed
    does."""
    smooth: Annotated[int, Range("[1, 1e6]")] = 1
    """Draw each point of a learning curve as the mean of its latest SMOOTH values, of each seed by itself; what was
    measured stays faint behind. For runs of `sparserl train` and `sparserl fit`."""
    size: str | None = None
    """Width and height of the picture in inches, e.g. 7,5; as large as what there is to draw needs if None."""
    learning: bool = False
    """Draw what learning did to each network beside the return: stable rank and condition of its features, dormant
    neurons, gradient and weight norm (learning.csv); of runs on one env."""
    topology: bool = False
    """Draw what the topology did instead, layer by layer: densities, overlap with the start, dormant and dead neurons,
    fan-in and fan-out; takes one run."""
    layer: str | None = None
    """Draw the connections of this layer over time instead, e.g. critic.qf0.1, animated if --out ends in .gif; takes
    one run."""

    def __post_init__(self) -> None:
        check_ranges(self, "--")
        _inches(self.size)

    @property
    def options(self) -> PictureOptions:
        """What is said of any picture."""
        return PictureOptions(size=_inches(self.size), smooth=self.smooth)


def _inches(text: str | None) -> tuple[float, float] | None:
    """Width and height; raises ConfigError if they are none or out of range."""
    if text is None:
        return None
    try:
        width, height = map(float, text.split(","))
    except ValueError:
        raise ConfigError(f"--size is width,height in inches, such as 7,5; got {shown(text)}") from None
    for number in (width, height):
        if number not in INCHES:
            raise ConfigError(f"--size: each must be in {INCHES.text} inches, got {number:g}")
    return width, height


@dataclass(frozen=True)
class _Drawn:
    """A run that is drawn with others: on what env or task sequence, and what its method is called."""

    path: Path
    task: str
    method: str
    config: Mapping[str, Any]
    finished: bool


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl plot`; returns the exit status."""
    command = parse(PlotCommand, arguments, command="plot")
    if not command.runs:
        raise ConfigError("name at least one run folder")
    check_ending(command.out, FORMATS if command.layer is None else [*FORMATS, ".gif"])
    check_writable(command.out)
    folders = _readable(find_runs(command.runs))
    kinds = dict.fromkeys(map(kind_in, folders))
    if len(kinds) > 1:
        runs = " and of ".join(KINDS_OF_RUNS[kind].what for kind in kinds)
        raise ConfigError(f"runs of {runs} do not go into one picture; name those of one kind")
    (kind,) = kinds
    _PLOT[kind](folders, command)
    print(f"wrote {command.out}")
    return 0


def _readable(folders: Sequence[RunFolder]) -> list[RunFolder]:
    """Without the runs that cannot be read, which are named; one alone is drawn as far as it can be."""
    if len(folders) == 1:
        return list(folders)
    broken: dict[Path, str] = {}
    readable = each_readable(folders, _check, broken)
    refuse_if_all_broken(folders, broken)
    for path, why in broken.items():
        print(f"sparserl: left out: {path}: {why}", file=sys.stderr)
    return [folder for folder, _ in readable]


def _check(folder: RunFolder) -> None:
    """Raises an error if the config or a log of a run cannot be read, or a return is no number."""
    read_columns(folder.path / "progress.csv")
    evaluations = read_columns(folder.path / "eval.csv")
    recorded_config(folder)
    kind = kind_in(folder)
    if kind == "continual":
        accuracy_curve(folder.path)
    if kind in AGENTS:
        returns = evaluations["return"]
        check_returns(evaluations["global_step"], returns, "eval.csv")


def _plot_trained(folders: Sequence[RunFolder], command: PlotCommand) -> None:
    flag = _flag_of_another_picture(command)
    if flag and not command.learning and len(folders) > 1:
        raise ConfigError(f"{flag} draws one run, got {len(folders)}")
    if flag and not command.learning:
        _refuse_smooth(command, f"{flag} draws no learning curves")
        if command.group or command.y is not None or command.x != PlotCommand.x:
            raise ConfigError(f"--x, --y and --group are of curves of several runs, and {flag} draws none")
    configs = [run_config(folder) for folder in folders]
    path, options = folders[0].path, command.options
    if command.topology:
        plot_topology(path, command.out, configs[0].title, options)
    elif command.layer is not None:
        draw = animate_connectivity if command.out.suffix.lower() == ".gif" else plot_connectivity
        draw(path, command.layer, command.out, options)
    else:
        runs, options = _grouped(folders, configs, command)
        if command.learning:
            if command.y is not None or command.x != PlotCommand.x:
                raise ConfigError("--learning draws all measures over env steps: leave --x and --y out")
            plot_learning(runs, command.out, options)
            return
        plot_runs(runs, command.out, x=command.x, y=command.y, options=options)


def _flag_of_another_picture(command: PlotCommand) -> str | None:
    """The flag that asks for another picture than the usual one; None if there is none."""
    given = {
        "--learning": command.learning,
        "--topology": command.topology,
        "--layer": command.layer is not None,
    }
    flags = [flag for flag, is_given in given.items() if is_given]
    if len(flags) > 1:
        raise ConfigError(f"{' and '.join(flags)} ask for {len(flags)} pictures; draw one after the other")
    return flags[0] if flags else None


def _refuse_options_of_trained(command: PlotCommand) -> None:
    """Raises ConfigError if a picture of continual runs is asked for what only others have."""
    flag = _flag_of_another_picture(command)
    if flag:
        raise ConfigError(f"{flag} draws a run of `sparserl train`; the picture of this run has all layers")
    if command.y is not None or command.x != PlotCommand.x:
        raise ConfigError("--x and --y are of runs of `sparserl train`; pictures of others have their own")


def _refuse_smooth(command: PlotCommand, why: str) -> None:
    if command.smooth > 1:
        raise ConfigError(f"--smooth is for learning curves of `sparserl train` and `sparserl fit`: {why}")


def _plotter(
    config_of: Callable[[RunFolder], Any],
    draw_one: Callable[..., Any],
    draw_several: Callable[..., Any],
    not_smooth: str | None = None,
) -> Callable[[Sequence[RunFolder], PlotCommand], None]:
    """What draws runs of one kind; `not_smooth` says why their curves are not smoothed."""

    def plot(folders: Sequence[RunFolder], command: PlotCommand) -> None:
        _refuse_options_of_trained(command)
        if not_smooth is not None:
            _refuse_smooth(command, not_smooth)
        configs = [config_of(folder) for folder in folders]
        if len(folders) == 1 and command.group:
            raise ConfigError("--group tells curves of several runs apart, got one run")
        if len(folders) == 1:
            draw_one(folders[0].path, command.out, configs[0].title, command.options)
        else:
            runs, options = _grouped(folders, configs, command)
            draw_several(runs, command.out, options)

    return plot


ACROSS_TASKS = "these run over a sequence, and a mean would mix its tasks"
_PLOT: dict[Kind, Callable[[Sequence[RunFolder], PlotCommand], None]] = {
    "train": _plot_trained,
    "continual": _plotter(continual_config, plot_sequence_run, plot_sequence_runs, ACROSS_TASKS),
    "continual_rl": _plotter(rl_continual_config, plot_rl_run, plot_rl_runs, ACROSS_TASKS),
    "fit": _plotter(fit_config, plot_fit, plot_fits),
}
"""Kind of run -> what draws some of them."""


# --- groups -----------------------------------------------------------------------------------------


def _grouped(
    folders: Sequence[RunFolder], configs: Sequence[RunConfig], command: PlotCommand
) -> tuple[list[Run], PictureOptions]:
    """Gives each run the label of its curve, values of some keys or else what seeds of one method share; and says what
    keys are called in labels."""
    drawn = [
        _Drawn(folder.path, config.task_label, " ".join(config.labels), config.plain(), is_finished(folder))
        for folder, config in zip(folders, configs, strict=True)
    ]
    keys = command.group or differing_keys(drawn, lambda one: f"{one.task} {one.method}")
    short = short_keys(keys)
    runs = []
    for task in dict.fromkeys(one.task for one in drawn):
        alike = [one for one in drawn if one.task == task]
        groups = _by_keys(alike, short) if command.group else seed_groups(alike, lambda one: one.method, short)
        runs += [Run(one.path, label, one.finished, task) for label, members in groups.items() for one in members]
    return runs, replace(command.options, keys={name: key for key, name in short.items()})


def _by_keys(drawn: Sequence[_Drawn], short: Mapping[str, str]) -> dict[str, list[_Drawn]]:
    groups: dict[str, list[_Drawn]] = defaultdict(list)
    known = {key for one in drawn for key in settings(one.config)}
    for key in short:
        if key not in known:
            raise ConfigError(unknown_name("key for --group", key, known))
    times_given = Counter(one.path.resolve() for one in drawn)
    for path, times in times_given.items():
        if times > 1:
            raise ConfigError(f"{path} is named {times} times; leave {times - 1} out")
    for one in drawn:
        values = settings(one.config)
        groups[", ".join(f"{name} {values.get(key, 'unset')}" for key, name in short.items())].append(one)
    return groups
