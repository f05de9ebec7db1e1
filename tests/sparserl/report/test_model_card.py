"""The text of a model card: numbers worked by hand, front matter that the Hub's own library reads."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml

from sparserl.export import ExportedPolicy, PolicyLayer
from sparserl.report.model_card import CardFacts, model_card, of_episodes, of_result

F32 = np.float32
RESULT: dict[str, Any] = {"params_nonzero": 9, "params_dense": 36, "flops_train": 1.5e9, "steps": 1000, "cpu_s": 12.4}


def policy() -> ExportedPolicy:
    """Three features to two neurons by three connections, then a dense layer to one action."""
    sparse = PolicyLayer(
        n_in=3,
        n_out=2,
        values=F32([1, 2, 3]),
        bias=F32([0, 1]),
        row_ptr=np.array([0, 1, 3], np.uint32),
        col=np.array([2, 0, 1], np.uint32),
    )
    dense = PolicyLayer(n_in=2, n_out=1, values=F32([[1, 2]]), bias=F32([0]), row_ptr=None, col=None)
    return ExportedPolicy([sparse, dense], "relu", F32([-1]), F32([1]), {"observations": "as they are"})


def facts(**changes: Any) -> CardFacts:
    made = CardFacts(
        kind="train",
        name="Hopper-v5__ds_td3",
        task="Hopper-v5",
        method="ds_td3",
        topology="set",
        seed=3,
        step=1000,
        which="last",
        measured=[of_episodes([1.0, 2.0, 3.0, 6.0])],
        result=RESULT,
        versions={"python": "3.11", "mujoco": None, "dirty": True},
        policies={"policy": policy()},
        c_functions={"policy": "void policy(const float *observation, float *action)"},
    )
    return replace(made, **changes)


def parts(card: str) -> tuple[dict[str, Any], str]:
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


def test_a_mean_has_the_interval_of_its_episodes() -> None:
    measured = of_episodes([1.0, 2.0, 3.0, 6.0])
    assert measured.estimate.value == 3.0
    assert 1.0 <= measured.estimate.low < 3.0 < measured.estimate.high <= 6.0
    assert measured.for_the_hub == "3.00 +/- 1.87"  # the root of (4 + 1 + 0 + 9) / 4
    assert measured == of_episodes([1.0, 2.0, 3.0, 6.0])
    assert of_episodes([5.0] * 4).row[2] == "5 to 5"


def test_a_single_episode_has_none() -> None:
    measured = of_episodes([7.0])
    assert math.isnan(measured.estimate.low)
    assert measured.for_the_hub == 7.0
    assert measured.row == ["mean return of 1 evaluation episode", "7", ""]
    assert "The interval" not in model_card(facts(measured=[measured]))


def test_front_matter_and_body() -> None:
    front, body = parts(model_card(facts()))
    assert front["library_name"] == "sparserl"
    assert front["pipeline_tag"] == "reinforcement-learning"
    assert {"sparserl", "sparse", "Hopper-v5", "ds_td3", "set"} <= set(front["tags"])
    (index,) = front["model-index"]
    (result,) = index["results"]
    assert result["dataset"] == {"name": "Hopper-v5", "type": "Hopper-v5"}
    (metric,) = result["metrics"]
    assert (metric["type"], metric["value"]) == ("mean_reward", "3.00 +/- 1.87")
    assert "9 parameters of the 36 of dense ones (25.0%), topology method `set`, seed 3" in body
    assert "| 0 | 2 x 3 | 3 | 50.0% |  | relu |" in body
    assert "| 1 | 1 x 2 | 2 | 100.0% |  |  |" in body
    assert "| FLOPs of training | 1.5e+09 |" in body
    assert "void policy(const float *observation, float *action)" in body
    assert "| python | 3.11 |" in body
    assert "mujoco" not in body
    assert "chosen by these very episodes" not in body
    assert "chosen by these very episodes" in model_card(facts(which="best"))


def test_the_library_of_the_hub_reads_it() -> None:
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard(model_card(facts())).data
    assert data.library_name == "sparserl"
    (result,) = data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == (
        "Hopper-v5",
        "mean_reward",
        "3.00 +/- 1.87",
    )


def test_dense_networks_are_not_called_sparse() -> None:
    front, body = parts(model_card(facts(result={**RESULT, "params_nonzero": 36}, topology="dense")))
    assert "sparse" not in front["tags"]
    assert "Dense networks of 36 parameters" in body
    assert "Truly sparse" not in body


def test_a_method_that_brings_its_own_connections_names_no_topology() -> None:
    result = {"params_nonzero_per_task": [5, 9], "params_dense": 36, "acc": 0.5, "bwt": None}
    measured = of_result("continual", result)
    assert [(one.type, one.estimate.value) for one in measured] == [("accuracy", 0.5)]
    made = facts(kind="continual", topology="dense", method="spacenet", result=result, measured=measured, policies={})
    front, body = parts(model_card(made))
    assert {"spacenet", "continual-learning"} <= set(front["tags"])
    assert "dense" not in front["tags"]
    assert "topology method" not in body
    assert "sparserl eval" not in body  # a classifier is evaluated in Python
    assert "sparserl continual --config config.yaml" in body


def test_what_is_missing_is_said() -> None:
    assert "There is no `policy.h`: too large." in model_card(facts(notes=["There is no `policy.h`: too large."]))
