"""`sparserl plot`: learning curves and topology, accuracies of classifiers, or the connections of a layer."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from sparserl import config as yaml_config
from sparserl.cli.arguments import Positional, parse
from sparserl.errors import ConfigError, unknown_name
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
from sparserl.plots.matrix import plot_sequence_run, plot_sequence_runs
from sparserl.plots.sequences import plot_rl_run, plot_rl_runs
from sparserl.plots.style import FORMATS, Run, check_ending
from sparserl.plots.topology import animate_connectivity, plot_connectivity, plot_topology
from sparserl.recording.metrics_table import AGENTS, Kind
from sparserl.recording.run_folder import RunFolder
from sparserl.recording.run_logs import check_returns, read_columns
from sparserl.report.folders import each_readable, find_runs, is_finished, refuse_if_all_broken
from sparserl.report.seed_groups import seed_groups, settings
from sparserl.written_files import check_writable


@dataclass(frozen=True)
class PlotCommand:
    """Draw return, density and explored fraction over env steps; or what the topology of one run did; or the accuracies
    and connections of a continual run; or the accuracies of several. Runs that differ in the seed alone are one curve:
    their mean, with its 95 % bootstrap interval; an unfinished run is drawn as far as it is, and the legend says so; of
    several, one that cannot be read is named and left out."""

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
    """Keys of the config that tell curves apart, e.g. algo topology.density; the env or task sequence always does. If
    none is given, everything but the seed does."""
    topology: bool = False
    """Draw what the topology did instead, layer by layer: densities, overlap with the start, dormant and dead neurons,
    fan-in and fan-out; takes one run."""
    layer: str | None = None
    """Draw the connections of this layer over time instead, e.g. critic.qf0.1, animated if --out ends in .gif; takes
    one run."""


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
    if kind_in(folder) in AGENTS:
        returns = evaluations["return"]
        check_returns(evaluations["global_step"], returns, "eval.csv")


def _plot_trained(folders: Sequence[RunFolder], command: PlotCommand) -> None:
    flag = _flag_of_one_run(command)
    if flag and len(folders) > 1:
        raise ConfigError(f"{flag} draws one run, got {len(folders)}")
    configs = [run_config(folder) for folder in folders]
    path, name = folders[0].path, configs[0].name
    if command.topology:
        plot_topology(path, command.out, f"{name}, seed {configs[0].seed}")
    elif command.layer is not None:
        draw = animate_connectivity if command.out.suffix.lower() == ".gif" else plot_connectivity
        draw(path, command.layer, command.out)
    else:
        drawn = [
            _Drawn(folder.path, *_parts(config), yaml_config.plain(config), is_finished(folder))
            for folder, config in zip(folders, configs, strict=True)
        ]
        plot_runs(_grouped(drawn, command.group), command.out, _title(drawn), x=command.x, y=command.y)


def _flag_of_one_run(command: PlotCommand) -> str | None:
    """The flag that asks for another picture than the usual one; None if there is none."""
    given = {"--topology": command.topology, "--layer": command.layer is not None}
    flags = [flag for flag, is_given in given.items() if is_given]
    if len(flags) > 1:
        raise ConfigError("--topology and --layer ask for two pictures; draw one after the other")
    return flags[0] if flags else None


def _refuse_options_of_trained(command: PlotCommand) -> None:
    """Raises ConfigError if a picture of continual runs is asked for what only others have."""
    flag = _flag_of_one_run(command)
    if flag:
        raise ConfigError(f"{flag} draws a run of `sparserl train`; the picture of this run has all layers")
    if command.y is not None or command.x != PlotCommand.x:
        raise ConfigError("--x and --y are of runs of `sparserl train`; pictures of others have their own")


def _plotter(
    config_of: Callable[[RunFolder], Any],
    draw_one: Callable[..., Any],
    draw_several: Callable[..., Any],
    parts_of: Callable[[Any], tuple[str, str]],
    *,
    has_panels: bool = False,
) -> Callable[[Sequence[RunFolder], PlotCommand], None]:
    """What draws runs of one kind, whose config says what they learned and how; panels are of one task sequence."""

    def plot(folders: Sequence[RunFolder], command: PlotCommand) -> None:
        _refuse_options_of_trained(command)
        configs = [config_of(folder) for folder in folders]
        if len(folders) == 1:
            draw_one(folders[0].path, command.out, configs[0].title)
            return
        drawn = [
            _Drawn(folder.path, *parts_of(config), config.plain(), is_finished(folder))
            for folder, config in zip(folders, configs, strict=True)
        ]
        parts = _by_task(drawn) if has_panels else [drawn]
        runs = [run for part in parts for run in _grouped(part, command.group)]
        draw_several(runs, command.out, _title(drawn))

    return plot


def _parts(config: Any) -> tuple[str, str]:
    """Env or task sequence, and method, from the name of a run."""
    task, _, method = config.name.partition("__")
    return task, method.replace("__", " ")


def _parts_of_classifier(config: Any) -> tuple[str, str]:
    return f"{config.sequence_label}, {config.scenario}-incremental", config.method


def _parts_of_sequence(config: Any) -> tuple[str, str]:
    return config.sequence_label, config.name.removeprefix(f"{config.sequence_label}__").replace("__", " ")


_PLOT: dict[Kind, Callable[[Sequence[RunFolder], PlotCommand], None]] = {
    "train": _plot_trained,
    "continual": _plotter(
        continual_config, plot_sequence_run, plot_sequence_runs, _parts_of_classifier, has_panels=True
    ),
    "continual_rl": _plotter(rl_continual_config, plot_rl_run, plot_rl_runs, _parts_of_sequence),
    "fit": _plotter(fit_config, plot_fit, plot_fits, _parts),
}
"""Kind of run -> what draws some of them."""


# --- groups -----------------------------------------------------------------------------------------


def _title(drawn: Sequence[_Drawn]) -> str:
    """What all of them ran on; nothing if that differs, for then it is in the labels."""
    tasks = {one.task for one in drawn}
    return tasks.pop() if len(tasks) == 1 else ""


def _by_task(drawn: Sequence[_Drawn]) -> list[list[_Drawn]]:
    return [[one for one in drawn if one.task == task] for task in dict.fromkeys(one.task for one in drawn)]


def _grouped(drawn: Sequence[_Drawn], keys: Sequence[str]) -> list[Run]:
    """Gives each run the label of its curve: values of some keys, or else what seeds of one method share."""
    alike = bool(_title(drawn))

    def name(one: _Drawn) -> str:
        return one.method if alike else f"{one.task} {one.method}"

    groups = _by_keys(drawn, keys, alike) if keys else seed_groups(drawn, name)
    return [Run(one.path, label, one.finished, one.task) for label, members in groups.items() for one in members]


def _by_keys(drawn: Sequence[_Drawn], keys: Sequence[str], alike: bool) -> dict[str, list[_Drawn]]:
    groups: dict[str, list[_Drawn]] = defaultdict(list)
    known = {key for one in drawn for key in settings(one.config)}
    for key in keys:
        if key not in known:
            raise ConfigError(unknown_name("key for --group", key, known))
    times_given = Counter(one.path.resolve() for one in drawn)
    for path, times in times_given.items():
        if times > 1:
            raise ConfigError(f"{path} is named {times} times; leave {times - 1} out")
    for one in drawn:
        values = settings(one.config)
        said = [f"{key} {values.get(key, 'unset')}" for key in keys]
        groups[", ".join(said if alike else [one.task, *said])].append(one)
    return groups
