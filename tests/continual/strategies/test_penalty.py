"""l2, ewc, online_ewc, si, mas: gradients of the penalty, and importances by hand."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.tasks import blobs, static
from support.trees import assert_equal_trees
from torch import nn

from sparserl.continual.learner import Group
from sparserl.continual.shared.quadratic import Term
from sparserl.continual.shared.task_network import ClassifierNetwork
from sparserl.continual.strategies.penalty import (
    EWC,
    L2,
    MAS,
    SI,
    EWCOptions,
    L2Options,
    MASOptions,
    OnlineEWC,
    OnlineEWCOptions,
    QuadraticPenalty,
    SIOptions,
)
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.continual.supervised.probe import LABELS
from sparserl.continual.supervised.runner import run_sequence
from sparserl.continual.supervised.tasks import Samples, Scenario, Task, TaskSequence
from sparserl.layers import SparseMLP

METHODS: dict[type[QuadraticPenalty], Any] = {
    L2: L2Options(strength=0.1),
    EWC: EWCOptions(strength=1.0, fisher_samples=4),
    OnlineEWC: OnlineEWCOptions(strength=1.0, gamma=0.5, fisher_samples=4),
    SI: SIOptions(strength=0.1),
    MAS: MASOptions(strength=0.01, samples=4),
}
SMALL = LearnerConfig(hidden=(12, 10), epochs=1, batch_size=16)


def learner_of(strategy: QuadraticPenalty, sequence: TaskSequence | None = None) -> SupervisedLearner:
    return SupervisedLearner(sequence or blobs(), strategy, SMALL, static(0.5), seed=0)


def terms_of(strategy: QuadraticPenalty) -> list[Term]:
    return strategy.terms["network"].terms


def of_one_parameter(strategy: QuadraticPenalty, values: torch.Tensor) -> Any:
    """A learner of a network with the one parameter `w`, which the strategy pulls."""
    network = SparseMLP([nn.Linear(1, values.numel(), bias=False)])
    own: Any = ClassifierNetwork(network, [[0]], has_heads=False)
    w = nn.Parameter(values)
    own.shared_parameters = lambda: {"w": w}
    learner = SimpleNamespace(kind="classifier", task=0, w=w)
    learner.groups = {"network": Group("network", [own], network, lambda: None, None)}
    strategy.attach(learner)  # type: ignore[arg-type]
    return learner


# What is kept when tasks end.


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (L2, [(4.0, 3.0)]),
        (EWC, [(1.0, 1.0), (2.0, 2.0), (4.0, 3.0)]),
        (OnlineEWC, [(4.0 + 0.5 * (2.0 + 0.5 * 1.0), 3.0)]),
        (SI, [(7.0, 3.0)]),
        (MAS, [(7.0, 3.0)]),
    ],
)
def test_importances_and_anchors_after_three_tasks(
    method: type[QuadraticPenalty], expected: list[tuple[float, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = method(METHODS[method])
    learner = of_one_parameter(strategy, torch.zeros(2))
    for task, importance in enumerate([1.0, 2.0, 4.0]):
        found = {"w": torch.full((2,), importance)}
        monkeypatch.setattr(strategy, "importances", lambda learner, network, found=found: found)
        learner.w.data.fill_(task + 1)
        strategy.end_task(learner)
    assert [(term.importances["w"].tolist(), term.anchors["w"].tolist()) for term in terms_of(strategy)] == [
        ([importance] * 2, [anchor] * 2) for importance, anchor in expected
    ]


@pytest.mark.parametrize("objective", ["outputs", "likelihood"])
def test_what_is_differentiated_is_what_answers(objective: Any) -> None:
    """Fewer neurons win while it learns."""
    config = dataclasses.replace(SMALL, activation="k_winners", winners=0.3)
    learner = SupervisedLearner(blobs(), MAS(METHODS[MAS]), config, static(0.5), seed=0)
    [network] = learner.networks
    for probe in learner.probe(network, objective, 20, "predicted"):
        outputs = learner.network.outputs_in_use(probe.x)
        assert not torch.equal(outputs, learner.network(probe.x))
        if objective == "outputs":
            competes = torch.isin(torch.arange(outputs.shape[1]), torch.tensor(learner.sequence.competing(0, 0)))
            expected = 2.0 * outputs * competes
        else:
            expected = outputs.softmax(dim=1) - nn.functional.one_hot(outputs.argmax(dim=1), outputs.shape[1])
        torch.testing.assert_close(probe.cotangents[0], expected.detach())


def test_importances_that_add_up_to_less_than_0_count_as_0(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = SI(METHODS[SI])
    learner = of_one_parameter(strategy, torch.zeros(3))
    for importances in ([2.0, 2.0, -1.0], [-1.0, -3.0, 1.0]):
        found = {"w": torch.tensor(importances)}
        monkeypatch.setattr(strategy, "importances", lambda learner, network, found=found: found)
        strategy.end_task(learner)
    assert terms_of(strategy)[0].importances["w"].tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("method", METHODS)
def test_of_a_sparse_layer_only_connections_are_kept_and_counted(method: type[QuadraticPenalty]) -> None:
    strategy = method(METHODS[method])
    learner = learner_of(strategy)
    assert strategy.memory() == {"anchors": 0, "importances": 0}
    list(run_sequence(learner))
    parameters = dict(learner.network.named_parameters())
    size = sum(parameter.numel() for parameter in parameters.values())
    assert parameters["0.values"].shape == (8 * 12 // 2,)
    for term in terms_of(strategy):
        assert all(term.anchors[name].shape == parameter.shape for name, parameter in parameters.items())
        assert all(term.importances[name].min() >= 0.0 for name in parameters)
        assert method is L2 or all(term.importances[name].shape == own.shape for name, own in parameters.items())
    kept = 3 if method is EWC else 1
    importances = 4 * len(parameters) if method is L2 else kept * 4 * size
    assert strategy.memory() == {"anchors": kept * 4 * size, "importances": importances}


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (L2, L2Options(strength=3.0)),
        (EWC, EWCOptions(strength=1000.0)),
        (OnlineEWC, OnlineEWCOptions(strength=1000.0)),
        (SI, SIOptions(strength=10.0)),
        (MAS, MASOptions(strength=0.1)),
    ],
)
def test_what_is_important_moves_less(method: type[QuadraticPenalty], options: Any) -> None:
    def moved(strength: float) -> float:
        """Squared distance that the second task moves, weighted by importance to the first."""
        sequence = blobs()
        config = LearnerConfig(hidden=(32, 24), optimizer="sgd", learning_rate=0.2, momentum=0.5, batch_size=16)
        strategy = method(dataclasses.replace(options, strength=strength))
        learner = SupervisedLearner(sequence, strategy, config, seed=0)
        list(learner.train())
        learner.finish_task()
        list(learner.train())
        (term,) = terms_of(strategy)
        return sum(
            float((term.importances[name] * (parameter.detach() - term.anchors[name]).square()).sum())
            for name, parameter in learner.network.named_parameters()
        )

    assert moved(options.strength) < 0.5 * moved(0.0)


# Importances by hand: one layer, two samples.


def one_layer(
    method: type[QuadraticPenalty],
    options: Any,
    weight: list[list[float]],
    bias: list[float],
    scenario: Scenario = "domain",
) -> SupervisedLearner:
    """Samples (1, 2) of class 0 and (3, 0) of class 1, and the network `weight x + bias`."""
    features = np.array([[1.0, 2.0], [3.0, 0.0]], np.float32)
    samples = Samples(features, np.array([0, 1]), np.array([0, 1]), mean=0.0, std=1.0)
    tasks = tuple(Task(index, "", (0, 1), (2 * index, 2 * index + 1), samples, samples) for index in (0, 1))
    sequence = TaskSequence("", scenario, tasks[: len(bias) // 2], 2, len(bias), {})
    learner = learner_of(method(options), sequence)
    layer = nn.Linear(2, len(bias))
    layer.weight.data, layer.bias.data = torch.tensor(weight), torch.tensor(bias)
    learner.use(SparseMLP([layer]))
    return learner


@pytest.mark.parametrize("method", [EWC, OnlineEWC])
@pytest.mark.parametrize(
    ("labels", "weights", "biases"),
    [
        # Class 0 has probability 3/4, so d loss / d logits is -+1/4 for the first sample and +-3/4 for the second.
        ("true", [(1 / 16 * 1 + 9 / 16 * 9) / 2, (1 / 16 * 4) / 2], (1 / 16 + 9 / 16) / 2),
        # Class 0 is the more probable one for both.
        ("predicted", [(1 / 16 * 1 + 1 / 16 * 9) / 2, (1 / 16 * 4) / 2], 1 / 16),
    ],
)
def test_the_fisher_information_of_a_softmax_layer(
    method: type[QuadraticPenalty], labels: str, weights: list[float], biases: float
) -> None:
    options = type(METHODS[method])(fisher_labels=labels)
    learner = one_layer(method, options, [[0.0, 0.0], [0.0, 0.0]], [math.log(3), 0.0])
    found = learner.strategy.importances(learner, learner.networks[0])  # type: ignore[attr-defined]
    torch.testing.assert_close(found["0.weight"], torch.tensor([weights, weights]))
    torch.testing.assert_close(found["0.bias"], torch.tensor([biases, biases]))


def test_the_fisher_information_asks_for_classes_that_compete() -> None:
    learner = one_layer(EWC, EWCOptions(), [[0.0, 0.0]] * 4, [math.log(3), 0.0, 9.0, 9.0], scenario="task")
    found = learner.strategy.importances(learner, learner.networks[0])  # type: ignore[attr-defined]
    torch.testing.assert_close(found["0.bias"], torch.tensor([5 / 16, 5 / 16, 0.0, 0.0]))


def test_sampled_labels_have_the_networks_probabilities() -> None:
    rng = np.random.default_rng(0)
    logits = torch.tensor([[math.log(6.0), math.log(3.0), 0.0, -math.inf]])
    drawn = np.array([int(LABELS["sampled"](logits, torch.tensor([1]), rng)) for _ in range(4000)])
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / drawn.size, [0.6, 0.3, 0.1, 0.0], atol=0.03)


@pytest.mark.parametrize(
    ("scenario", "unseen"), [("class", 0.0), ("task", 0.0), ("domain", 5.0)], ids=["class", "task", "domain"]
)
def test_memory_aware_importances_of_a_linear_layer(scenario: Scenario, unseen: float) -> None:
    learner = one_layer(MAS, MASOptions(), [[1.0, 0.0], [0.0, -1.0], [1.0, 1.0], [1.0, 1.0]], [0.0] * 4, scenario)
    found = learner.strategy.importances(learner, learner.networks[0])  # type: ignore[attr-defined]
    # Outputs of the samples: (1, -2) and (3, 0); the gradient is 2 f_i x_j. The others, (3, 3), count if they compete.
    torch.testing.assert_close(found["0.weight"][:2], torch.tensor([[(2 + 18) / 2, 4 / 2], [4 / 2, 8 / 2]]))
    torch.testing.assert_close(found["0.bias"][:2], torch.tensor([(2 + 6) / 2, 4 / 2]))
    assert found["0.bias"][2:].tolist() == [6.0 if unseen else 0.0] * 2


@pytest.mark.parametrize(("count", "expected"), [(5, 5), (40, 40), (1000, 40)])
def test_samples_are_drawn_without_replacement(count: int, expected: int) -> None:
    learner = learner_of(EWC(EWCOptions()))
    probes = list(learner.probe(learner.networks[0], "outputs", count, None))
    seen = [tuple(row) for probe in probes for row in probe.x.tolist()]
    assert sum(probe.share for probe in probes) == 1.0
    assert len(seen) == len(set(seen)) == expected


@pytest.mark.parametrize(
    ("method", "options"),
    [(EWC, EWCOptions()), (EWC, EWCOptions(fisher_labels="sampled")), (MAS, MASOptions())],
    ids=["ewc", "sampled", "mas"],
)
def test_importances_do_not_depend_on_the_batches_they_come_from(
    method: type[QuadraticPenalty], options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for size in (1, 7, 1000):
        monkeypatch.setattr("sparserl.continual.supervised.probe.PROBED_AT_A_TIME", size)
        strategy = method(options)
        learner = learner_of(strategy)
        found.append(strategy.importances(learner, learner.networks[0]))
    for name, importances in found[0].items():
        assert importances.max() > 0.0
        for other in found[1:]:
            torch.testing.assert_close(other[name], importances, rtol=1e-5, atol=1e-9)


# The path of synaptic intelligence.


class Slope:
    """Loss a/2 * w^2, learned by plain gradient descent."""

    def __init__(self, w: nn.Parameter) -> None:
        self.w = w
        self.curvature = torch.tensor([1.0, 0.5])

    def descend(self, strategy: SI, learner: Any, *, rate: float) -> torch.Tensor:
        """One step; returns the gradient that was followed."""
        self.w.grad = self.curvature * self.w.detach()
        strategy.before_step(learner, learner.groups["network"])
        self.w.data -= rate * self.w.grad
        strategy.after_step(learner, learner.groups["network"])
        return self.w.grad


def test_the_path_integral_on_a_quadratic_loss() -> None:
    strategy = SI(SIOptions(strength=0.5, damping=0.1))
    learner = of_one_parameter(strategy, torch.tensor([1.0, 2.0]))
    slope = Slope(learner.w)
    strategy.begin_task(learner)
    for _ in range(2):
        slope.descend(strategy, learner, rate=0.5)
    strategy.end_task(learner)
    # 1 -> 0.5 -> 0.25 lowers the loss, to first order, by 1 * 0.5 + 0.5 * 0.25;
    # 2 -> 1.5 -> 1.125 by 1 * 0.5 + 0.75 * 0.375.
    first = torch.tensor([0.625 / (0.75**2 + 0.1), 0.78125 / (0.875**2 + 0.1)])
    torch.testing.assert_close(terms_of(strategy)[0].importances["w"], first)
    assert terms_of(strategy)[0].anchors["w"].tolist() == [0.25, 1.125]

    strategy.begin_task(learner)
    slope.curvature = torch.tensor([4.0, 0.0])
    slope.descend(strategy, learner, rate=0.25)  # the penalty is 0 here: 0.25 -> 0
    followed = slope.descend(strategy, learner, rate=0.25)
    torch.testing.assert_close(followed[0], first[0] * -0.25)  # 2 * 0.5 * importance * (0 - 0.25), the loss is flat
    strategy.end_task(learner)
    # What the penalty moves is no part of the path: at 0 the gradient of the loss alone is 0.
    moved = slope.w.detach()[0] - 0.25
    second = first + torch.tensor([0.25 / (moved**2 + 0.1), 0.0])
    torch.testing.assert_close(terms_of(strategy)[0].importances["w"], second)


def test_a_state_of_0_1_does_not_name_the_network() -> None:
    learner, other = learner_of(SI(METHODS[SI])), learner_of(SI(METHODS[SI]))
    list(learner.train())
    learner.finish_task()
    state = learner.strategy.state_dict()
    other.strategy.load_state_dict(state["network"])
    assert_equal_trees(other.strategy.state_dict(), state)


# Bad options.
