"""The metrics that runs log, each once: `METRICS`.

The columns of progress.csv, the table of docs/metrics.md, the panels of the dashboard and the axes of plots follow from
it. An agent logs a further metric by its logger, and a row here: nothing else has to know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["train", "continual", "continual_rl", "fit"]
"""`sparserl train`; `sparserl continual` with a classifier; with an agent on environments; `sparserl fit`."""
KINDS: tuple[Kind, ...] = ("train", "continual", "continual_rl", "fit")
AGENTS: tuple[Kind, ...] = ("train", "continual_rl")
SEQUENCES: tuple[Kind, ...] = ("continual", "continual_rl")
WITH_GRADIENTS: tuple[Kind, ...] = ("train", "continual", "fit")
COLUMN_ORDER: dict[Kind, tuple[str, ...]] = {
    "train": ("rollout", "train", "topology", "cost", "time"),
    "continual": ("train", "topology", "cl", "cost", "time"),
    "continual_rl": ("train", "rollout", "cl", "cost", "time"),
    "fit": ("train", "topology", "fit", "cost", "time"),
}
"""What the names of columns begin with, in their order in progress.csv; within each, the order of `METRICS`."""
SHARE = "share"
"""Unit of what is from 0 to 1."""


@dataclass(frozen=True)
class CurvePanel:
    """Where the dashboard draws a metric over `global_step`.

    Attributes:
        section: Of the dashboard.
        title: Of the panel.
        log: Whether its y axis is logarithmic.
    """

    section: str
    title: str
    log: bool = False


@dataclass(frozen=True)
class Metric:
    """A number that runs log.

    Attributes:
        name: As in progress.csv and at trackers; `<layer>` (the network's name before it), `<net>` (a trained network)
            and `<i>` (a task) stand for any, and such a metric is never a column.
        meaning: In words, for the glossary.
        kinds: Runs that log it.
        unit: Of its value; empty for what has none, such as a loss.
        column: Whether it is a column of progress.csv; if not, only trackers get it.
        panel: Of the dashboard; None draws none.
        x: Name of the plot axis that it is, for `sparserl plot --x`; it then grows from 0. None if it is none.
        title: Beside a plot axis; the name if empty. A column that is no x axis and has one is drawn unless something
            is named.
    """

    name: str
    meaning: str
    kinds: tuple[Kind, ...] = KINDS
    unit: str = ""
    column: bool = True
    panel: CurvePanel | None = None
    x: str | None = None
    title: str = ""

    @property
    def regex(self) -> str | None:
        """What matches the names that it stands for; None if that is its own name alone."""
        if "<" not in self.name:
            return None
        return self.name.replace("<layer>", r".*\..*").replace("<net>", "[^/]+").replace("<i>", r"\d+")


def _layer(name: str, meaning: str, unit: str, title: str = "", kinds: tuple[Kind, ...] = ("train",)) -> Metric:
    panel = CurvePanel("sparsity", title) if title else None
    return Metric(f"topology/<layer>/{name}", meaning, kinds, unit, column=False, panel=panel)


def _network(name: str, meaning: str, unit: str, title: str, *, log: bool = False) -> Metric:
    panel = CurvePanel("learning", title.replace("\n", " "), log=log)
    return Metric(f"learning/<net>/{name}", meaning, ("train",), unit, column=False, panel=panel, title=title)


METRICS: tuple[Metric, ...] = (
    Metric(
        "global_step",
        "env steps of an agent, gradient steps of a classifier: the x axis everywhere",
        unit="steps",
        x="steps",
        title="env steps",
    ),
    Metric(
        "eval/return_mean",
        "mean undiscounted return of evaluation episodes",
        ("train",),
        column=False,
        panel=CurvePanel("headline", "evaluation return"),
    ),
    Metric("eval/return_std", "its standard deviation over episodes", ("train",), column=False),
    Metric("eval/ep_len_mean", "mean length of evaluation episodes", ("train",), "env steps", column=False),
    Metric(
        "rollout/ep_rew_mean",
        "mean return of the last 100 training episodes, with exploration",
        AGENTS,
        panel=CurvePanel("headline", "training return, with exploration"),
    ),
    Metric("rollout/ep_len_mean", "mean length of these episodes", AGENTS, "env steps"),
    Metric("rollout/exploration_rate", "rate of random actions of DQN", AGENTS, SHARE),
    Metric("train/task", "task that is learned, counted from 0; -1 before the first", SEQUENCES),
    Metric("train/epoch", "epoch in it, counted from 0", ("continual", "fit")),
    Metric("train/n_updates", "gradient updates so far", AGENTS, "updates"),
    Metric(
        "train/loss",
        "loss of the latest gradient step: of a classifier cross-entropy and what the method adds, of DQN the error of "
        "its values",
        panel=CurvePanel("optimisation", "loss of a classifier or of DQN", log=True),
    ),
    Metric("train/learning_rate", "learning rate of that step", ("fit",)),
    Metric(
        "train/actor_loss",
        "actor loss of the latest update",
        AGENTS,
        panel=CurvePanel("optimisation", "actor loss"),
    ),
    Metric(
        "train/critic_loss",
        "critic loss of the latest update",
        AGENTS,
        panel=CurvePanel("optimisation", "critic loss", log=True),
    ),
    Metric(
        "train/critic_disagreement",
        "standard deviation of the critics' values of a transition, mean over the latest batch",
        AGENTS,
        panel=CurvePanel("optimisation", "disagreement of critics", log=True),
    ),
    Metric(
        "train/ent_coef",
        "entropy temperature of SAC",
        AGENTS,
        panel=CurvePanel("optimisation", "entropy temperature", log=True),
    ),
    Metric(
        "train/policy_gradient_loss",
        "policy loss of PPO, mean over the gradient updates of the latest rollout",
        ("train",),
        panel=CurvePanel("optimisation", "policy loss of PPO"),
    ),
    Metric(
        "train/policy_loss", "policy loss of A2C", ("train",), panel=CurvePanel("optimisation", "policy loss of A2C")
    ),
    Metric(
        "train/value_loss",
        "value loss of PPO or A2C, likewise",
        ("train",),
        panel=CurvePanel("optimisation", "value loss of PPO and A2C", log=True),
    ),
    Metric("train/entropy_loss", "minus the mean entropy of the policy, likewise", ("train",)),
    Metric("train/approx_kl", "how far the policy of PPO moved, an estimate of the KL divergence", ("train",)),
    Metric("train/clip_fraction", "actions whose probability ratio was clipped", ("train",), SHARE),
    Metric(
        "train/explained_variance",
        "share of the variance of returns in the latest rollout that values explain; absent where all are equal",
        ("train",),
        panel=CurvePanel("optimisation", "explained variance of returns"),
    ),
    Metric("train/std", "mean standard deviation of a Gaussian policy of PPO or A2C", ("train",)),
    Metric(
        "topology/density",
        "connections that exist in all sparse layers (those that allocation makes fully dense are not among them), "
        "share of the dense layers",
        ("train",),
        SHARE,
        panel=CurvePanel("sparsity", "density"),
        title="density of\nsparse layers",
    ),
    Metric(
        "topology/explored_fraction",
        "connections that have ever existed in them, share of the dense layers (R_s of ITOP)",
        ("train",),
        SHARE,
        panel=CurvePanel("sparsity", "share of positions ever connected"),
        title="explored fraction\nof sparse layers",
    ),
    Metric(
        "topology/gradient_norm",
        "2-norm of the gradient of all connections of sparse layers: of an agent's losses on 256 env steps of the "
        "replay buffer or the latest rollout, of a classifier's latest step; absent right after an event of the latter",
        WITH_GRADIENTS,
    ),
    Metric(
        "topology/gradient_flow",
        "mean over these layers of its 2-norm in each (EGF)",
        WITH_GRADIENTS,
        panel=CurvePanel("sparsity", "gradient flow"),
    ),
    Metric(
        "topology/gradient_flow_per_connection",
        "the same with each layer's norm divided by its number of connections",
        WITH_GRADIENTS,
    ),
    Metric(
        "topology/gradient_snr",
        "mean over connections of the size of their mean gradient over these env steps, in standard deviations",
        ("train",),
        panel=CurvePanel("sparsity", "signal to noise of gradients"),
    ),
    _layer("gradient_norm", "2-norm of the gradient of its connections, as above", "", kinds=WITH_GRADIENTS),
    _layer("gradient_snr", "signal to noise of its gradients, as above", ""),
    _layer("density", "connections that exist, share of the dense layer", SHARE, "density of each layer"),
    _layer("explored_fraction", "connections that have ever existed, share of the dense layer", SHARE),
    _layer("grown_total", "connections grown so far", "connections", "connections grown"),
    _layer("dropped_total", "connections dropped so far", "connections"),
    _layer("initial_overlap", "share of the first connections that exist", SHARE),
    _layer(
        "dead_neurons",
        "output neurons without a connection into them or on to the next layer",
        "neurons",
        "dead neurons",
    ),
    _layer(
        "dormant",
        "share of the output neurons whose mean activity on these env steps is at most `recycle_threshold` (0.1) of "
        "the layer's",
        SHARE,
        "dormant neurons",
    ),
    _layer("recycled_total", "dormant neurons recycled so far, with `recycle_interval`", "neurons"),
    _layer(
        "degree_relevant",
        "with noise features: mean connections of a relevant input; actions count as relevant",
        "connections",
    ),
    _layer("degree_irrelevant", "with noise features: mean connections of an irrelevant input", "connections"),
    _network(
        "stable_rank",
        "of the features A (256 env steps of the replay buffer or the latest rollout x what the output layer reads): "
        "||A||_F^2 / ||A||_2^2; of several critics the mean",
        "",
        "stable rank\nof features",
    ),
    _network(
        "condition",
        "largest singular value of these features, their mean taken off, over the smallest above max(256, neurons) "
        "x 1.2e-7 of it; likewise",
        "",
        "condition\nof features",
        log=True,
    ),
    _network(
        "dormant",
        "share of all its hidden neurons whose mean activity on these env steps is at most .1 of their layer's; "
        "likewise",
        SHARE,
        "dormant share",
    ),
    _network(
        "gradient_norm",
        "2-norm of the gradient of its losses on these env steps, of all its weights and biases",
        "",
        "gradient norm",
        log=True,
    ),
    _network("weight_norm", "2-norm of all its weights and biases", "", "weight norm"),
    Metric(
        "replay/size",
        "with `dynamic_capacity`: transitions that can be drawn",
        ("train",),
        "transitions",
        column=False,
    ),
    Metric(
        "replay/policy_distance",
        "with `dynamic_capacity`: half the mean squared difference of the policy's actions, when the oldest "
        "transitions were stored and now",
        ("train",),
        column=False,
    ),
    Metric(
        "cl/accuracy_seen",
        "mean accuracy on the tasks learned so far; ACC at the end",
        ("continual",),
        SHARE,
        panel=CurvePanel("headline", "mean over the tasks so far: accuracy"),
    ),
    Metric(
        "cl/accuracy/task<i>",
        "accuracy on task i; absent where it is not measured (future tasks in scenario `class`)",
        ("continual",),
        SHARE,
        column=False,
        panel=CurvePanel("continual", "accuracy on each task"),
    ),
    Metric(
        "cl/return_own",
        "mean evaluation return, with exploration, on the present task",
        ("continual_rl",),
        panel=CurvePanel("continual", "return on the present task"),
    ),
    Metric(
        "cl/return_seen",
        "the same over the tasks so far",
        ("continual_rl",),
        panel=CurvePanel("headline", "mean over the tasks so far: return"),
    ),
    Metric(
        "cl/success_seen",
        "share of these episodes with success at any step, where the environment signals it",
        ("continual_rl",),
        SHARE,
        panel=CurvePanel("headline", "mean over the tasks so far: success"),
    ),
    Metric(
        "cl/return/task<i>",
        "mean evaluation return, with exploration, on task i",
        ("continual_rl",),
        column=False,
        panel=CurvePanel("continual", "return on each task"),
    ),
    Metric(
        "cl/success/task<i>",
        "share of these episodes with success at any step, where the environment signals it",
        ("continual_rl",),
        SHARE,
        column=False,
        panel=CurvePanel("continual", "success on each task"),
    ),
    Metric(
        "cl/bwt",
        "mean change of accuracy since a task was learned, the latest left out; negative: forgot",
        ("continual",),
        panel=CurvePanel("continual", "backward transfer"),
    ),
    Metric(
        "cl/forgetting_final",
        "the same with the other sign",
        ("continual",),
        panel=CurvePanel("continual", "forgetting"),
    ),
    Metric(
        "cl/connections",
        "connections that the tasks so far use",
        SEQUENCES,
        "connections",
        panel=CurvePanel("continual", "connections in use"),
    ),
    Metric(
        "cl/free_connections",
        "connections of the dense networks that none of them uses",
        SEQUENCES,
        "connections",
        panel=CurvePanel("continual", "free connections"),
    ),
    Metric(
        "cl/numbers_kept",
        "numbers needed to answer for the tasks so far and to learn the next: values, indices, samples, all alike",
        ("continual",),
        "numbers",
        panel=CurvePanel("continual", "numbers kept"),
    ),
    Metric(
        "fit/accuracy_validation",
        "accuracy on the validation samples after the last epoch, if there are any",
        ("fit",),
        SHARE,
        panel=CurvePanel("headline", "accuracy on validation samples"),
    ),
    Metric("fit/loss_validation", "mean cross-entropy on them, or squared error of what is reconstructed", ("fit",)),
    Metric(
        "fit/accuracy_test",
        "accuracy on the test samples after the last epoch; nothing is chosen by it",
        ("fit",),
        SHARE,
        panel=CurvePanel("headline", "accuracy on test samples"),
    ),
    Metric("fit/loss_test", "mean cross-entropy on them, or squared error of what is reconstructed", ("fit",)),
    Metric(
        "fit/connections",
        "connections that exist",
        ("fit",),
        "connections",
        panel=CurvePanel("sparsity", "connections of a classifier"),
    ),
    Metric(
        "cost/flops_train",
        "FLOPs of all gradient updates so far, as counted below",
        ("train", "fit"),
        "FLOPs",
        panel=CurvePanel("cost", "training FLOPs"),
        x="flops",
        title="FLOPs of training",
    ),
    Metric(
        "cost/params_nonzero",
        "connections plus biases of the trained networks, heads of all tasks included",
        (*AGENTS, "fit"),
        "parameters",
        panel=CurvePanel("cost", "parameters"),
    ),
    Metric(
        "cost/cpu_s",
        "CPU time of the process so far, evaluation and logs included, parts of a resumed run added up",
        unit="s",
        panel=CurvePanel("cost", "CPU time in s"),
        x="cpu",
        title="CPU time (s)",
    ),
    Metric(
        "cost/memory_peak_bytes",
        "largest memory of the process so far",
        unit="bytes",
        panel=CurvePanel("cost", "largest memory in bytes"),
    ),
    Metric(
        "cost/energy_kwh",
        "with `--energy`, and then a column too: what codecarbon measures of this process, or on a virtual machine "
        "estimates; no network is used",
        unit="kWh",
        column=False,
        panel=CurvePanel("cost", "energy in kWh"),
    ),
    Metric(
        "time/sps",
        "steps (see `global_step`) a second since the last row",
        unit="1/s",
        panel=CurvePanel("cost", "steps a second"),
    ),
    Metric("time/elapsed_s", "wall time of the run", unit="s", x="seconds", title="wall time (s)"),
)


def names(kind: Kind, metrics: Sequence[Metric] = METRICS) -> tuple[str, ...]:
    """What a kind of run logs, columns or not."""
    return tuple(metric.name for metric in metrics if kind in metric.kinds)


def columns(kind: Kind, metrics: Sequence[Metric] = METRICS) -> tuple[str, ...]:
    """Columns of progress.csv of a kind of run, in order; `global_step` is the first."""
    named = [metric.name for metric in metrics if kind in metric.kinds and metric.column]
    groups = ("global_step", *COLUMN_ORDER[kind])
    return tuple(name for group in groups for name in named if name.partition("/")[0] == group)


def x_axes(metrics: Sequence[Metric] = METRICS) -> dict[str, tuple[str, str]]:
    """Name of an axis of learning curves -> column of progress.csv that grows from 0, and title."""
    return {metric.x: (metric.name, metric.title or metric.name) for metric in metrics if metric.x is not None}


def drawn(metrics: Sequence[Metric] = METRICS) -> dict[str, str]:
    """Column of progress.csv -> title of its axis, of those that are drawn unless one is named."""
    return {metric.name: metric.title for metric in metrics if metric.column and metric.title and metric.x is None}


def glossary(metrics: Sequence[Metric] = METRICS) -> str:
    """All metrics as a table in Markdown; `csv`: a column of progress.csv, `log`: for trackers alone."""
    heads = ["key", "meaning", "unit", "`train`", "`continual`", "on environments", "`fit`"]
    rows = [
        [
            f"`{metric.name.replace('<layer>', '<net>.<layer>')}`",
            metric.meaning,
            metric.unit,
            *("" if kind not in metric.kinds else "csv" if metric.column else "log" for kind in KINDS),
        ]
        for metric in metrics
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))
