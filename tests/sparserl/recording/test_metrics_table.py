"""The table of metrics: what follows from a row, and that headers of CSV files stay what they are."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from sparserl.recording.metrics_table import (
    COLUMN_ORDER,
    KINDS,
    METRICS,
    SHARE,
    CurvePanel,
    Kind,
    Metric,
    columns,
    drawn,
    glossary,
    names,
    x_axes,
)
from sparserl.recording.wandb_workspace import Lines, sections

HEADERS: dict[Kind, str] = {
    "train": "global_step rollout/ep_rew_mean rollout/ep_len_mean rollout/exploration_rate train/n_updates train/loss "
    "train/actor_loss train/critic_loss "
    "train/critic_disagreement train/ent_coef train/policy_gradient_loss train/policy_loss train/value_loss "
    "train/entropy_loss train/approx_kl train/clip_fraction train/explained_variance train/std "
    "topology/density topology/explored_fraction topology/gradient_norm "
    "topology/gradient_flow "
    "topology/gradient_flow_per_connection topology/gradient_snr cost/flops_train cost/params_nonzero cost/cpu_s "
    "cost/memory_peak_bytes time/sps time/elapsed_s",
    "continual": "global_step train/task train/epoch train/loss topology/gradient_norm topology/gradient_flow "
    "topology/gradient_flow_per_connection cl/accuracy_seen cl/bwt cl/forgetting_final "
    "cl/connections cl/free_connections cl/numbers_kept cost/cpu_s cost/memory_peak_bytes time/sps time/elapsed_s",
    "continual_rl": "global_step train/task train/n_updates train/loss train/actor_loss train/critic_loss "
    "train/critic_disagreement train/ent_coef rollout/ep_rew_mean rollout/ep_len_mean rollout/exploration_rate "
    "cl/return_own cl/return_seen cl/success_seen cl/connections "
    "cl/free_connections cost/params_nonzero cost/cpu_s cost/memory_peak_bytes time/sps time/elapsed_s",
    "fit": "global_step train/epoch train/loss train/learning_rate topology/gradient_norm topology/gradient_flow "
    "topology/gradient_flow_per_connection fit/accuracy_validation fit/loss_validation "
    "fit/accuracy_test fit/loss_test fit/connections cost/flops_train cost/params_nonzero cost/cpu_s "
    "cost/memory_peak_bytes time/sps time/elapsed_s",
}
"""Of new runs; a file of before keeps its own."""


@pytest.mark.parametrize("kind", KINDS)
def test_headers_of_progress_csv_stay_what_they_are(kind: Kind) -> None:
    assert columns(kind) == tuple(HEADERS[kind].split())


def test_a_row_alone_makes_a_metric_known_everywhere() -> None:
    panel = CurvePanel("cost", "heat of the room", log=True)
    joules = Metric("cost/joules", "heat so far", ("train",), "J", panel=panel, x="heat", title="heat (J)")
    cold = Metric("train/cold", "cold neurons", ("train", "continual_rl"), SHARE, title="cold\nneurons")
    more = (*METRICS, joules, cold)
    assert [name for name in columns("train", more) if name not in columns("train")] == ["train/cold", "cost/joules"]
    assert [name for name in columns("continual_rl", more) if name not in columns("continual_rl")] == ["train/cold"]
    assert columns("continual", more) == columns("continual")
    assert {*names("train", more)} - {*names("train")} == {"cost/joules", "train/cold"}
    assert sections(more)["cost"][-1] == Lines("heat of the room", ("cost/joules",), log=True)
    assert x_axes(more) == {**x_axes(), "heat": ("cost/joules", "heat (J)")}
    assert drawn(more) == {**drawn(), "train/cold": "cold\nneurons"}
    added = [line for line in glossary(more).splitlines() if line not in glossary().splitlines()]
    assert added == [
        "| `cost/joules` | heat so far | J | csv |  |  |  |",
        "| `train/cold` | cold neurons | share | csv |  | csv |  |",
    ]


def test_axes_of_plots_are_columns_of_trained_runs() -> None:
    assert x_axes() == {
        "steps": ("global_step", "env steps"),
        "flops": ("cost/flops_train", "FLOPs of training"),
        "cpu": ("cost/cpu_s", "CPU time (s)"),
        "seconds": ("time/elapsed_s", "wall time (s)"),
    }
    assert {name for name, _ in x_axes().values()} | drawn().keys() <= {*columns("train")}
    assert all(metric.unit == SHARE for metric in METRICS if metric.name in drawn())


def test_each_metric_stands_once_and_each_column_has_a_place() -> None:
    assert [name for name, count in Counter(metric.name for metric in METRICS).items() if count > 1] == []
    for metric in METRICS:
        assert metric.kinds
        assert not (metric.column and metric.regex)
        for kind in metric.kinds if metric.column else ():
            assert metric.name.partition("/")[0] in ("global_step", *COLUMN_ORDER[kind]), metric.name


def test_names_for_any_layer_and_task_match_theirs_alone() -> None:
    patterns = {metric.name: metric.regex for metric in METRICS if metric.regex is not None}
    density, accuracy = patterns["topology/<layer>/density"], patterns["cl/accuracy/task<i>"]
    assert re.search(density, "topology/critic.qf0.1/density")
    assert not re.search(density, "topology/density")
    assert re.search(accuracy, "cl/accuracy/task12")
    assert not re.search(accuracy, "cl/accuracy_seen")
