"""The W&B workspace of a project: which of our metrics stand on which panel, and how that becomes W&B's own model.

Panels of metrics follow from `metrics_table.METRICS`, those of whole runs are in `OF_RUNS`. What a panel names must be
logged by some run (a test reads runs back).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparserl.errors import ConfigError
from sparserl.extras import how_to_install
from sparserl.recording.metrics_table import METRICS, Metric
from sparserl.recording.trackers import wandb_defaults, wandb_reason

MAX_RUNS = 100
"""Runs that a panel draws; ten unless it is told."""
BY_GROUP: dict[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stderr"}


@dataclass(frozen=True)
class Lines:
    """Metrics over `global_step`, mean and standard error over the seeds of a group.

    Attributes:
        title: Of the panel.
        metrics: Their names.
        regex: All metrics that match it, instead.
        log: Whether the y axis is logarithmic.
    """

    title: str
    metrics: tuple[str, ...] = ()
    regex: str | None = None
    log: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What it reads of a run."""
        return self.metrics if self.regex is None else (f"/{self.regex}/",)

    def panel(self, reports: Any) -> Any:
        of_group = {"groupby": reports.Metric("Group"), **BY_GROUP}
        return reports.LinePlot(
            title=self.title,
            x="global_step",
            y=list(self.metrics),
            metric_regex=self.regex,
            log_y=self.log or None,
            **of_group,
        )


@dataclass(frozen=True)
class Points:
    """A point for each run, `x` logarithmic; both `summary:...` or `config:...`."""

    title: str
    x: str
    y: str

    @property
    def names(self) -> tuple[str, ...]:
        """What it reads of a run."""
        return (self.x, self.y)

    def panel(self, reports: Any) -> Any:
        return reports.ScatterPlot(title=self.title, x=_of_run(reports, self.x), y=_of_run(reports, self.y), log_x=True)


@dataclass(frozen=True)
class Bars:
    """A bar for each group, mean over its seeds, of a value of the summary."""

    title: str
    metric: str

    @property
    def names(self) -> tuple[str, ...]:
        """What it reads of a run."""
        return (f"summary:{self.metric}",)

    def panel(self, reports: Any) -> Any:
        of_group = {"groupby": reports.Metric("Group"), **BY_GROUP}
        return reports.BarPlot(title=self.title, metrics=[self.metric], **of_group)


@dataclass(frozen=True)
class Parallel:
    """A line for each run through its values of some columns, `summary:...` or `config:...`."""

    title: str
    names: tuple[str, ...]

    def panel(self, reports: Any) -> Any:
        columns = [reports.ParallelCoordinatesPlotColumn(metric=_of_run(reports, name)) for name in self.names]
        return reports.ParallelCoordinatesPlot(title=self.title, columns=columns)


@dataclass(frozen=True)
class Films:
    """Films of evaluations, by step."""

    title: str
    names: tuple[str, ...]

    def panel(self, reports: Any) -> Any:
        return reports.MediaBrowser(title=self.title, media_keys=list(self.names))


Panel = Lines | Points | Bars | Parallel | Films

OF_RUNS: dict[str, tuple[Panel, ...]] = {
    "headline": (Bars("return, mean of the last 10 evaluations", "result/return_last10"),),
    "sparsity": (
        Points("return against parameters", "summary:result/params_nonzero", "summary:result/return_last10"),
        Parallel(
            "method, density, return",
            ("config:algo", "config:topology.method", "summary:result/density", "summary:result/return_last10"),
        ),
    ),
    "learning": (),
    "continual": (
        Bars("mean over all tasks at the end", "result/acc"),
        Bars("backward transfer at the end", "result/bwt"),
        Bars("forgetting at the end", "result/forgetting_final"),
    ),
    "cost": (Points("return against training FLOPs", "summary:result/flops_train", "summary:result/return_last10"),),
    "optimisation": (),
    "video": (Films("evaluation", ("eval/video",)),),
}
"""Section -> panels of what is known of whole runs; those of metrics follow them."""


def sections(metrics: Sequence[Metric] = METRICS) -> dict[str, tuple[Panel, ...]]:
    """Section -> its panels, those of metrics in the order of the table."""
    sections = {name: list(panels) for name, panels in OF_RUNS.items()}
    for metric in metrics:
        panel = metric.panel
        if panel is not None:
            plain = () if metric.regex else (metric.name,)
            sections[panel.section].append(Lines(panel.title, plain, metric.regex, panel.log))
    return {name: tuple(panels) for name, panels in sections.items()}


SECTIONS = sections()
"""Section -> its panels."""
PINNED = ("summary:result/return_last10", "summary:result/acc", "summary:result/params_nonzero", "config:seed")
"""Columns beside the names of runs."""


def workspace(project: str, entity: str | None) -> Any:
    """The workspace, as W&B's library has it; nothing is sent.

    Args:
        project: Of the runs.
        entity: Team or user; `save` takes that of the account if None.

    Raises:
        ConfigError: If that library is not installed.
    """
    reports, workspaces = _library()
    sections = [
        workspaces.Section(name=name, is_open=True, panels=[one.panel(reports) for one in panels])
        for name, panels in SECTIONS.items()
    ]
    return workspaces.Workspace(
        entity=entity or "",
        project=project,
        name="sparserl",
        sections=sections,
        settings=workspaces.WorkspaceSettings(x_axis="global_step", max_runs=MAX_RUNS),
        runset_settings=workspaces.RunsetSettings(groupby=[workspaces.Metric("Group")], pinned_columns=list(PINNED)),
    )


def model_json(made: Any) -> str:
    """What W&B stores of a workspace."""
    text: str = made._to_model().spec.model_dump_json(by_alias=True, exclude_none=True, indent=2)
    return text + "\n"


def save(made: Any) -> str:
    """Sends a workspace to the W&B server and returns its address.

    Raises:
        ConfigError: If there is no account, no network, or the server refuses.
    """
    wandb_defaults()
    import wandb

    try:
        made.entity = made.entity or wandb.Api().default_entity or ""
        made.save()
        address: str = made.url
    except Exception as error:  # its own, of its network, of its answer
        raise ConfigError(f"W&B did not take the workspace: {wandb_reason(error)}") from None
    return address


def _library() -> tuple[Any, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of its own models, which are no business of users
            import wandb_workspaces.reports.v2 as reports
            import wandb_workspaces.workspaces as workspaces
    except ImportError:
        raise ConfigError(f"the workspace needs wandb-workspaces; {how_to_install('dashboard')}") from None
    return reports, workspaces


def _of_run(reports: Any, name: str) -> Any:
    kind, _, key = name.partition(":")
    return {"summary": reports.SummaryMetric, "config": reports.Config}[kind](key)
