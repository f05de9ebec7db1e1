"""l2, ewc, online_ewc, si, mas for agents: importances by hand and by autograd, and how terms follow connections."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.rl_learners import DENSE, N_OBS, OPTIONS, REWIRING, learn_tasks, make_learner

from sparserl.agents import DSSAC, DSTD3
from sparserl.continual.rl.learner import RLLearner
from sparserl.continual.rl.probe import FISHER_FLOOR
from sparserl.continual.shared.quadratic import Term
from sparserl.continual.strategies.penalty import (
    EWC,
    L2,
    MAS,
    SI,
    EWCOptions,
    L2Options,
    MASOptions,
    OnlineEWC,
    QuadraticPenalty,
)
from sparserl.continual.supervised.runner import run_sequence
from sparserl.topology.rewire import remap

METHODS = ("l2", "ewc", "online_ewc", "si", "mas")


def make(method: str, *, critics: bool = False, strength: float | None = None, **changes: Any) -> RLLearner:
    own = replace(getattr(OPTIONS, method), critics=critics)
    own = own if strength is None else replace(own, strength=strength)
    return make_learner(method, options=replace(OPTIONS, **{method: own}), **changes)


def terms_of(learner: RLLearner) -> dict[str, list[Term]]:
    """Terms of each network that is pulled."""
    assert isinstance(learner.strategy, QuadraticPenalty)
    return {name: terms.terms for name, terms in learner.strategy.terms.items()}


def term_of(learner: RLLearner, network: str = "actor.pi") -> Term:
    (term,) = terms_of(learner)[network]
    return term


# --- importances by hand ------------------------------------------------------------------------------


def by_hand(method: str, algo: type[Any] = DSSAC, log_std: float = 0.0) -> Term:
    """What the first task finds important in an actor of one hidden neuron, whose every observation is (2, 1, 0).

    The neuron is 2: its weights are (1, 0, 0). The first mean is 3 times that, 6; its log standard deviation has the
    weight 1/2. The other actuator reads nothing.
    """
    learner = make(method, algo=algo, topology=DENSE, net_arch=[1])
    list(learner.train())
    learner.agent.replay_buffer.observations[:, 0, :N_OBS] = (2.0, 1.0, 0.0)
    hidden, head = learner.networks[0].of_task(0)
    with torch.no_grad():
        hidden.weight[:], hidden.bias[:] = torch.tensor([1.0, 0.0, 0.0]), 0.0
        head.weight[:], head.bias[:] = 0.0, 0.0
        if algo is DSSAC:
            head.weight[:, 0] = torch.tensor([3.0, 0.0, 0.5, 0.0])
            head.bias[:] = torch.tensor([0.0, 0.0, log_std - 1.0, np.log(0.5)])
        else:
            head.weight[:, 0] = torch.tensor([0.5, 0.0])
    learner.finish_task()
    return term_of(learner, learner.networks[0].name)


def close(found: torch.Tensor, expected: list[Any]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), rtol=1e-4, atol=1e-7)


def test_the_fisher_information_of_the_gaussian_by_hand() -> None:
    # Standard deviation 1: (3 x)^2 + 2 (1/2 x)^2 = 9.5 x^2, with x = 2, 1, 0, and 1 for the bias.
    found = by_hand("ewc").importances
    close(found["0.weight"], [[38.0, 9.5, FISHER_FLOOR]])
    close(found["0.bias"], [9.5])


def test_the_fisher_information_of_a_narrow_gaussian_by_hand() -> None:
    # exp(-2) = 0.1353 squared is 0.0183 = v: (9 + 2 v / 4) / (v + 1e-6) x^2.
    variance = np.exp(-4.0)
    expected = (9.0 + 0.5 * variance) / (variance + 1e-6)
    close(by_hand("ewc", log_std=-2.0).importances["0.bias"], [expected])


def test_a_clipped_standard_deviation_does_not_move() -> None:
    # Clipped to exp(2), variance exp(4): 9 / exp(4) x^2, and nothing for the standard deviation.
    close(by_hand("ewc", log_std=2.5).importances["0.bias"], [9.0 * np.exp(-4.0)])
    # Clipped to exp(-20), where the variance is the floor of 1e-6 alone.
    close(by_hand("ewc", log_std=-21.0).importances["0.bias"], [9.0e6])
    # Of the squared norm the mean alone: 2 * 6 * 3.
    close(by_hand("mas", log_std=2.5).importances["0.bias"], [36.0])


def test_the_fisher_information_of_a_deterministic_policy_by_hand() -> None:
    # tanh(1), slope 1 - tanh(1)^2 = 0.41997: (0.41997 / 2)^2 x^2.
    square = (0.5 * (1.0 - np.tanh(1.0) ** 2)) ** 2
    close(by_hand("ewc", DSTD3).importances["0.weight"], [[4 * square, square, FISHER_FLOOR]])


def test_memory_aware_synapses_by_hand() -> None:
    # Of mean^2 + log_std^2 = 36 + 0: 2 * 6 * 3 x + 2 * 0 * 1/2 x.
    found = by_hand("mas").importances
    close(found["0.weight"], [[72.0, 36.0, 0.0]])
    close(found["0.bias"], [36.0])
    # 2 * 6 * 3 + 2 * -3 * 1/2
    close(by_hand("mas", log_std=-3.0).importances["0.bias"], [33.0])


def test_all_parameters_are_equally_important_to_l2() -> None:
    found = by_hand("l2").importances
    assert {name: value.item() for name, value in found.items()} == {"0.weight": 1.0, "0.bias": 1.0}


def per_sample(method: str, learner: RLLearner, place: int) -> dict[str, torch.Tensor]:
    """Importances by autograd, a sample and an output at a time."""
    network = learner.networks[place]
    x, own = learner.probed(network, 12), network.of_task(learner.task)
    parameters = list(network.shared_parameters().items())
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters}

    def gradients(value: torch.Tensor) -> list[torch.Tensor]:
        found = torch.autograd.grad(value, [parameter for _, parameter in parameters], retain_graph=True)
        return list(found)

    for sample in x:
        output = own(sample[None])[0]
        gaussian = network.group == "actor" and learner.agent.actor.outputs_per_action == 2
        if method == "mas":
            said = torch.cat([output[:2], output[2:].clamp(-20, 2)]) if gaussian else output
            squares = [gradient.abs() for gradient in gradients(said.square().sum())]
        elif gaussian:
            mean, std = output[:2], output[2:].clamp(-20, 2).exp()
            squares = [torch.zeros_like(parameter) for _, parameter in parameters]
            for actuator in range(2):
                weight = std[actuator].item() ** 2 + 1e-6
                for factor, value in ((1.0, mean[actuator]), (2.0, std[actuator])):
                    for total, gradient in zip(squares, gradients(value), strict=True):
                        total += factor * gradient**2 / weight
        else:
            squares = [sum(gradient**2 for gradient in row) for row in zip(*map(gradients, output), strict=True)]
        for (name, _), own_squares in zip(parameters, squares, strict=True):
            sums[name] += own_squares / len(x)
    return sums


@pytest.mark.parametrize("topology", [DENSE, REWIRING], ids=["dense", "sparse"])
@pytest.mark.parametrize("algo", [DSSAC, DSTD3])
@pytest.mark.parametrize("method", ["ewc", "mas"])
def test_importances_are_those_of_single_samples(method: str, algo: type[Any], topology: Any) -> None:
    learner = make(method, algo=algo, topology=topology, critics=True, steps=(20, 20))
    list(learner.train())
    expected = {network.name: per_sample(method, learner, place) for place, network in enumerate(learner.networks)}
    learner.finish_task()
    for name, own in expected.items():
        found = term_of(learner, name).importances
        assert list(found) == list(own)
        for parameter, importance in own.items():
            wanted = importance.clamp(min=FISHER_FLOOR) if method == "ewc" else importance
            torch.testing.assert_close(found[parameter], wanted, rtol=2e-4, atol=1e-6)
        assert method == "mas" or min(importance.min() for importance in found.values()) == pytest.approx(FISHER_FLOOR)


# --- from which transitions ---------------------------------------------------------------------------


@pytest.mark.parametrize("buffer", ["emptied", "kept"])
def test_importances_are_estimated_from_the_task_that_ends(buffer: str) -> None:
    learner = make("ewc", steps=(25, 15), border={"buffer": buffer})
    learn_tasks(learner, 1)
    list(learner.train())
    stored = learner.agent.replay_buffer
    actor, critic = (learner.probed(network, 12) for network in learner.networks[:2])
    assert actor.shape == (12, N_OBS)
    assert critic.shape == (12, N_OBS + 2)
    assert (actor[:, 0] == 1).all()
    assert torch.equal(critic[:, :N_OBS], actor)  # the same draw
    whole = np.hstack([stored.observations[:, 0, :N_OBS], stored.actions[:, 0]]).astype(np.float32)
    for row in critic.numpy():
        assert (whole == row).all(axis=1).any()
    assert len(np.unique(actor.numpy(), axis=0)) > 4


# --- what is pulled -----------------------------------------------------------------------------------


@pytest.mark.parametrize("critics", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_the_penalty_reaches_shared_parameters_of_the_networks_that_are_pulled(method: str, critics: bool) -> None:
    learner = make(method, critics=critics, strength=3.0, topology=DENSE, steps=(15, 15))
    learn_tasks(learner, 1)
    for group in ("actor", "critic"):
        module = getattr(learner.agent, group)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 0.5
                parameter.grad = torch.full_like(parameter, 0.25)
        learner.before_step(group)
        pulled = {}
        for network in learner.networks:
            if network.group == group and (critics or group == "actor"):
                term = term_of(learner, network.name)
                for name, parameter in network.shared_parameters().items():
                    # twice the strength, times the importance, times the distance
                    pulled[parameter] = 2 * 3.0 * term.importances[name] * 0.5
        assert len(pulled) == {"actor": 4, "critic": 8 * critics}[group]
        for name, parameter in module.named_parameters():
            expected = torch.full_like(parameter, 0.25) + pulled.get(parameter, 0.0)
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-5, msg=name)


def test_a_shared_head_is_pulled_as_well() -> None:
    learner = make("l2", topology=DENSE, steps=(15, 15), border={"heads": "shared"})
    learn_tasks(learner, 1)
    assert list(term_of(learner).anchors) == ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]


@pytest.mark.parametrize("method", METHODS)
def test_what_is_pulled_hard_moves_less(method: str) -> None:
    def moved(strength: float) -> float:
        """Squared distance that the second task moves, weighted by importance to the first."""
        learner = make(method, strength=strength, topology=DENSE, steps=(20, 30))
        learn_tasks(learner, 1)
        list(learner.train())
        term = term_of(learner)
        now = learner.networks[0].shared_parameters()
        return sum(
            float((term.importances[name] * (now[name].detach() - anchor).square()).sum())
            for name, anchor in term.anchors.items()
        )

    assert moved(100.0) < 0.5 * moved(0.0)


# --- over tasks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_importances_add_up_around_the_latest_values(method: str) -> None:
    learner = make(method, topology=DENSE, steps=(15, 15, 15))
    strategy, found = learner.strategy, []
    assert isinstance(strategy, QuadraticPenalty)
    older = 0.5 if method == "online_ewc" else 1.0
    for task in range(3):
        list(learner.train())
        found.append(strategy.importances(learner, learner.networks[0]))
        learner.finish_task()
        term = term_of(learner)
        for name, parameter in learner.networks[0].shared_parameters().items():
            expected = sum(one[name] * older ** (task - when) for when, one in enumerate(found))
            torch.testing.assert_close(term.importances[name], expected.clamp(min=0.0))
            assert torch.equal(term.anchors[name], parameter)
        assert method != "l2" or {float(one) for one in term.importances.values()} == {task + 1.0}
    size = 4 * (16 * 3 + 16 + 16 * 16 + 16)
    assert strategy.memory() == {"anchors": size, "importances": 4 * 4 if method == "l2" else size}


@pytest.mark.parametrize("critics", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_terms_follow_connections(method: str, critics: bool) -> None:
    learner = make(method, critics=critics, steps=(20, 25))
    learn_tasks(learner, 1)
    evolver = learner.agent.evolver
    mirror = {}  # the terms as they must be, carried through the events by themselves
    for network in learner.networks[: 3 if critics else 1]:
        for place, name in enumerate(network.shared):
            term = term_of(learner, network.name)
            mirror[name] = [term.importances[f"{place}.values"].clone(), term.anchors[f"{place}.values"].clone()]

            def follow(change: Any, grown_values: Any, name: str = name) -> None:
                mirror[name] = [
                    torch.from_numpy(remap(kept.numpy(), change)) if kept.dim() else kept for kept in mirror[name]
                ]

            evolver.follow(name, follow)
    evolver.events.clear()
    for _ in learner.train():
        for network in learner.networks[: 3 if critics else 1]:
            for place, (name, layer) in enumerate(network.shared.items()):
                term = term_of(learner, network.name)
                importance, anchor = term.importances[f"{place}.values"], term.anchors[f"{place}.values"]
                assert torch.equal(importance, mirror[name][0])
                assert torch.equal(anchor, mirror[name][1])
                assert anchor.shape == (evolver.layers[name].topology.nnz,) == layer.values.shape
    moved = {event.layer for event in evolver.events if event.grown}
    assert moved >= set(mirror)
    anchor = mirror["actor.pi.trunk.1"][1]
    assert (anchor == 0).any()  # of grown connections
    assert (anchor != 0).any()


def test_the_path_of_si_follows_connections_and_begins_where_they_grow() -> None:
    learner = make("si", steps=(20, 25))
    evolver, strategy = learner.agent.evolver, learner.strategy
    grown: list[int] = []

    def follow(change: Any, grown_values: Any) -> None:
        paths = strategy.state_dict()["actor.pi"]
        new = change.source < 0
        grown.append(int(new.sum()))
        start, lowered = (paths[name]["1.values"].numpy() for name in ("start", "lowered"))
        assert start.shape == lowered.shape == change.source.shape
        np.testing.assert_array_equal(start[new], np.broadcast_to(grown_values, start[new].shape))
        assert not lowered[new].any()

    evolver.follow("actor.pi.trunk.1", follow)
    learn_tasks(learner, 2)
    assert sum(grown) > 0


# --- bad input ----------------------------------------------------------------------------------------


def test_each_method_has_its_class_and_default() -> None:
    assert [type(make(method).strategy) for method in METHODS] == [L2, EWC, OnlineEWC, SI, MAS]
    l2, ewc, mas = (options().of_kind("agent") for options in (L2Options, EWCOptions, MASOptions))
    assert (l2.strength, ewc.strength, mas.strength) == (1e5, 1e4, 1e4)
    assert (ewc.samples, mas.samples) == (2560, 2560)  # type: ignore[attr-defined]
    assert not hasattr(l2, "samples")  # it estimates nothing
    for method in METHODS:
        assert list(run_sequence(make(method, steps=(12, 12))))[-1].task == 1
