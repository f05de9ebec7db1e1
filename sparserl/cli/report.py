"""`sparserl report`: what runs reached, with intervals over seeds, as text, JSON or a page."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np

from sparserl import config as yaml_config
from sparserl.agents.table import AGENTS
from sparserl.cli.arguments import parse
from sparserl.cli.options import Positional
from sparserl.errors import ConfigError, SparserlError
from sparserl.experiment.opening import open_run
from sparserl.experiment.run_config import continual_config, fit_config, kind_in, run_config
from sparserl.experiment.topologies import topologies_of_run
from sparserl.experiment.train_config import TrainConfig
from sparserl.json_text import json_text
from sparserl.metrics import statistics
from sparserl.metrics.bootstrap import LEVEL_PERCENT, RESAMPLES
from sparserl.ranges import Count, check_ranges
from sparserl.recording.metrics_table import Kind
from sparserl.recording.run_folder import RunFolder, WhichCheckpoint
from sparserl.report.cells import Record
from sparserl.report.comparison import comparison_record, comparison_section
from sparserl.report.document import Document
from sparserl.report.fits import FitRun, fit_records, fit_section, read_fit_run
from sparserl.report.folders import each_readable, find_runs, is_finished, refuse_if_all_broken, run_line, runs_where
from sparserl.report.reinforcement import rl_record, rl_sections
from sparserl.report.rl_run import read_run
from sparserl.report.runs import sections
from sparserl.report.supervised import SupervisedRun, read_supervised_run, supervised_records, supervised_section
from sparserl.report.text import print_document
from sparserl.report.topology import topology_sections
from sparserl.report.topology_distance import distance_records, distance_sections
from sparserl.report.trained import TrainedRun, comparisons, read_trained_run
from sparserl.written_files import check_writable, write_text

C = TypeVar("C")
T = TypeVar("T")


@dataclass(frozen=True)
class ReportCommand:
    """Compare runs, with bootstrap intervals over seeds; runs that differ in the seed alone are one group. Runs of
    `sparserl train`: final return, mean of the last 10 evaluations and area under the learning curve, probability of
    improvement over a baseline, cost. Continual runs: performance at the end, forgetting and forward transfer; those of
    agents against runs of --method scratch. Runs of `sparserl fit`: accuracies, cost. Runs that are unfinished or
    cannot be read are listed, with the reason, and enter no number."""

    runs: Annotated[tuple[Path, ...], Positional()]
    """Run folders, or folders that hold them."""
    baseline: str | None = None
    """Label of the group of trained runs that others are compared with; the densest if not given."""
    where: tuple[str, ...] = ()
    """Only runs whose config or versions say so, e.g. total_steps=100000 env=Hopper-v5 mujoco=3.3.0."""
    allow_mixed: bool = False
    """Compare runs of different env versions or step budgets all the same, and say so."""
    last: Count = 1
    """Evaluations of continual runs of agents, up to the end of a task or of the run, that "at the end" averages;
    Continual World takes 5."""
    topology_distance: bool = False
    """Say instead how far apart the connections of runs are, of every pair: with hidden neurons assigned to each other
    (NNSTD), and neuron by neuron; unfinished runs too."""
    checkpoint: WhichCheckpoint | None = None
    """With --topology-distance: the best policy by evaluation, or the last; as `sparserl eval` if not given."""
    json: Path | None = None
    """File to write everything to: values, intervals, run folders and seeds."""
    html: Path | None = None
    """File to write one self-contained page to, with charts."""

    def __post_init__(self) -> None:
        check_ranges(self, "--")
        of_results = {"baseline": self.baseline, "allow-mixed": self.allow_mixed, "last": self.last != 1}
        for option, is_given in of_results.items():
            if self.topology_distance and is_given:
                raise ConfigError(f"--{option} has no effect with --topology-distance: it is about results")
        if self.checkpoint is not None and not self.topology_distance:
            raise ConfigError(f"--checkpoint {self.checkpoint} is for --topology-distance; results are of whole runs")


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl report`; returns the exit status."""
    command = parse(ReportCommand, arguments, command="report")
    if not command.runs:
        raise ConfigError("name at least one run folder")
    for path in (command.json, command.html):
        check_writable(path)
    make = _distances if command.topology_distance else _report
    document, record = make(command, shlex.join(["sparserl", "report", *arguments]))
    print_document(document)
    if command.json is not None:
        _write_json(record, command.json)
    if command.html is not None:
        from sparserl.report.page import write_page

        write_page(document, command.html)
        print(f"wrote {command.html}")
    return 0


def _report(command: ReportCommand, command_line: str) -> tuple[Document, Record]:
    """The report to render, and the same as plain data that JSON holds."""
    folders = runs_where(find_runs(command.runs), command.where)
    broken: dict[Path, str] = {}
    kinds = each_readable([folder for folder in folders if is_finished(folder)], kind_in, broken)

    def read(kind: Kind, reader: Callable[[RunFolder], T]) -> list[T]:
        of_kind = [folder for folder, own in kinds if own == kind]
        return [run for _, run in each_readable(of_kind, reader, broken)]

    trained = read("train", _trained)
    of_agents = sections(read("continual_rl", lambda folder: read_run(folder.path)))
    supervised = read("continual", _supervised)
    of_tables = fit_records(read("fit", _fit))
    if command.baseline is not None and not trained:
        raise ConfigError("--baseline is a group of runs of `sparserl train`, but no such run here is finished")
    if command.last != ReportCommand.last and not of_agents:
        raise ConfigError(f"--last {command.last} is of continual runs of agents, but no such run here is finished")

    compared = comparisons(trained, command.baseline, command.allow_mixed)
    of_trained = [comparison_record(one) for one in compared]
    rl_records = [rl_record(section, command.last, command.allow_mixed) for section in of_agents]
    of_classifiers = supervised_records(supervised)

    compared_records = [*of_trained, *rl_records, *of_classifiers, *of_tables]
    labels = _labels([group for record in compared_records for group in record["groups"]])
    named = dict(each_readable(folders, lambda folder: _label_and_seed(folder, labels), broken))
    refuse_if_all_broken(folders, broken)
    runs = [run_line(folder, *named.get(folder, ("", 0)), problem=broken.get(folder.path, "")) for folder in folders]
    parts = [
        *map(comparison_section, of_trained),
        *topology_sections(compared),
        *rl_sections(rl_records),
        *map(supervised_section, of_classifiers),
        *map(fit_section, of_tables),
    ]
    document = Document(f"{len(folders)} run" + "s" * (len(folders) > 1), command_line, parts, runs)
    record = {
        "command": command_line,
        "resamples": RESAMPLES,
        "last": command.last,
        "level_percent": LEVEL_PERCENT,
        "sections": rl_records,
        "trained": {"level_percent": statistics.LEVEL_PERCENT, "comparisons": of_trained},
        "supervised": {"level_percent": statistics.LEVEL_PERCENT, "protocols": of_classifiers},
        "fits": {"level_percent": statistics.LEVEL_PERCENT, "tables": of_tables},
        "runs": [asdict(line) | {"path": str(line.path)} for line in runs],
    }
    return document, record


def _distances(command: ReportCommand, command_line: str) -> tuple[Document, Record]:
    """The same of the distances between topologies."""
    folders = runs_where(find_runs(command.runs), command.where)
    runs = [(folder.path, topologies_of_run(open_run(folder.path, command.checkpoint))) for folder in folders]
    records = distance_records(runs)
    document = Document(f"{len(folders)} runs", command_line, distance_sections(records), [])
    return document, {"command": command_line, "topology_distance": records}


def _write_json(record: Record, path: Path) -> None:
    write_text(path, json_text(record, indent=1) + "\n")
    print(f"wrote {path}")


# --- kinds of runs ----------------------------------------------------------------------------------


def _trained(folder: RunFolder) -> TrainedRun:
    config = _of_folder(run_config, folder)
    family = AGENTS[config.algo].sparse_twin or config.algo
    return read_trained_run(folder.path, _method(config), yaml_config.plain(config), family)


def _method(config: TrainConfig) -> str:
    """What a run of `sparserl train` is called beside its task and seed."""
    return config.name.removeprefix(f"{config.task_label}__").replace("__", " ")


def _supervised(folder: RunFolder) -> SupervisedRun:
    config = _of_folder(continual_config, folder)
    method = config.name.removeprefix(f"{config.sequence_label}__{config.scenario}__").replace("__", " ")
    return read_supervised_run(folder.path, config.sequence_label, str(config.scenario), method, config.plain())


def _fit(folder: RunFolder) -> FitRun:
    return read_fit_run(folder.path, _of_fit(folder), _of_folder(fit_config, folder).plain())


def _of_fit(folder: RunFolder) -> str:
    """What a run of `sparserl fit` is called beside its data and seed."""
    config = _of_folder(fit_config, folder)
    return config.name.removeprefix(f"{config.data_name}__{config.task}__").replace("__", " ")


def _of_folder(read: Callable[[RunFolder], C], folder: RunFolder) -> C:
    """A config, or an error that names its run."""
    try:
        return read(folder)
    except SparserlError as error:
        raise ConfigError(f"{folder.path}: {error}") from None


def _labels(groups: Sequence[Record]) -> dict[str, str]:
    """Folder of each finished run -> its group; the first one where it is in several."""
    labels: dict[str, str] = {}
    for group in groups:
        for path in np.ravel(group["runs"]).tolist():  # over environments a row of runs has one seed
            labels.setdefault(path, group["label"])
    return labels


def _label_and_seed(folder: RunFolder, labels: Mapping[str, str]) -> tuple[str, int]:
    """Group and seed of a run; an unfinished one is in no group, and called by its method."""
    config = yaml_config.load_yaml(folder.path / "config.yaml")
    label = labels.get(str(folder.path)) or config.get("method")
    if not label:
        label = _of_fit(folder) if kind_in(folder) == "fit" else _method(_of_folder(run_config, folder))
    return str(label), int(config.get("seed", 0))
