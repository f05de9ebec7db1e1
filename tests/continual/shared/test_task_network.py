"""What tasks share of an agent's networks, what is their own, and under which names."""

from __future__ import annotations

from typing import Any

import pytest
from support.rl_learners import DENSE, N_OBS, REWIRING, make_learner

from sparserl.agents import DSSAC, DSTD3
from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.layers.linear import linear

INPUTS = {"actor": N_OBS, "critic": N_OBS + 2}


@pytest.mark.parametrize(("algo", "actor"), [(DSSAC, "actor.pi"), (DSTD3, "actor.mu")])
def test_the_actor_comes_first_then_each_critic(algo: type[Any], actor: str) -> None:
    networks = make_learner(algo=algo).networks
    assert [network.name for network in networks] == [actor, "critic.qf0", "critic.qf1"]
    assert [network.group for network in networks] == ["actor", "critic", "critic"]
    assert all(network.has_heads for network in networks)


@pytest.mark.parametrize("heads", ["task", "shared"])
def test_names_are_those_of_the_evolver_and_of_the_tasks_network(heads: str) -> None:
    learner = make_learner(border={"heads": heads})
    evolver = learner.agent.evolver
    for network in learner.networks:
        prefix = f"{network.name}.trunk" if heads == "task" else network.name
        hidden = {f"{prefix}.0", f"{prefix}.1"}
        assert set(network.shared) == (hidden if heads == "task" else {*hidden, f"{prefix}.2"})
        assert {name for name in network.shared if name in evolver.layers} == hidden
        assert all(network.shared[name] is evolver.layers[name] for name in hidden)
        for task in range(3):
            own = dict(network.of_task(task).named_parameters())
            shared = network.shared_parameters()
            assert all(own[name] is parameter for name, parameter in shared.items())
            assert set(own) - set(shared) == ({"2.weight", "2.bias"} if heads == "task" else set())
    assert (learner.networks[0].of_task(0)[-1] is learner.networks[0].of_task(1)[-1]) == (heads == "shared")


@pytest.mark.parametrize("task_id", ["hidden", "visible"])
@pytest.mark.parametrize("heads", ["task", "shared"])
def test_hidden_layers_read_the_id_only_where_it_is_visible(heads: str, task_id: str) -> None:
    for network in make_learner(border={"heads": heads, "task_id": task_id}).networks:
        first = next(iter(network.shared.values()))
        assert linear(first).shape[1] == INPUTS[network.group] + (3 if task_id == "visible" else 0)


@pytest.mark.parametrize("topology", [DENSE, REWIRING], ids=["dense", "sparse"])
def test_who_uses_what_when_nobody_owns_connections(topology: Any) -> None:
    actor = make_learner(topology=topology).networks[0]
    first, second = (linear(layer).weights.numel() for layer in actor.shared.values())
    if topology is DENSE:
        assert (first, second) == (48, 256)
    for learned in range(4):
        assert actor.usage(learned) == [
            ConnectionUsage("actor.pi.trunk.0", (), 0, 48, 16, 0, shared=first),
            ConnectionUsage("actor.pi.trunk.1", (), 0, 256, 16, 0, shared=second),
            # 3 heads of 16 x 4; those of tasks that have not been learned are nobody's.
            ConnectionUsage("actor.pi.heads", (64,) * learned, 64 * learned, 192, 12, 0),
        ]


def test_one_output_layer_for_all_is_shared() -> None:
    critic = make_learner(border={"heads": "shared"}, topology=DENSE).networks[1]
    assert critic.head_usage(2) == []
    assert critic.usage(2)[-1] == ConnectionUsage("critic.qf0.2", (), 0, 16, 1, 0, shared=16)
