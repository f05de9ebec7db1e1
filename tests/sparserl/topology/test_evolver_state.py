"""A stored clock goes on as if it had never stopped."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from support.layers import one_layer, random_layer, sparse

from sparserl.errors import TopologyError
from sparserl.layers import SparseLinear
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.moments import OptimizerMoments
from sparserl.topology.rewire import RewireRule


class Run:
    """Two groups with optimizers and made-up gradients that depend on the update alone."""

    def __init__(self, seed: int, keep_regrown: bool) -> None:
        self.groups: dict[str, dict[str, SparseLinear]] = {
            "critic": {"critic.0": random_layer(0), "critic.1": random_layer(1)},
            "actor": {"actor.0": random_layer(2)},
        }
        rule = RewireRule(
            "signed_magnitude",
            "random",
            0.3,
            decay="cosine",
            update_interval=3,
            first_update=2,
            last_update=20,
            shrink_at_end=True,
            keep_regrown=keep_regrown,
        )
        self.evolver = TopologyEvolver(self.groups, rule, seed=seed, new_value="uniform")
        self.optimizers = {
            group: torch.optim.Adam([layer.values for layer in layers.values()], lr=0.05)
            for group, layers in self.groups.items()
        }
        for group, layers in self.groups.items():
            for name, layer in layers.items():
                self.evolver.follow(name, OptimizerMoments(self.optimizers[group], layer.values))

    def advance(self, first: int, last: int) -> None:
        for update in range(first, last + 1):
            self.evolver.begin_update(update)
            for group in ["critic"] if update % 2 else ["critic", "actor"]:
                generator = torch.Generator().manual_seed(update)
                for layer in self.groups[group].values():
                    layer.values.grad = torch.randn(layer.nnz, generator=generator)
                self.optimizers[group].step()
                self.evolver.end_update(group)

    def store(self) -> dict[str, Any]:
        return {
            "layers": {name: layer.state_dict() for name, layer in self.evolver.layers.items()},
            "optimizers": {group: optimizer.state_dict() for group, optimizer in self.optimizers.items()},
            "evolver": self.evolver.state_dict(),
        }

    def load(self, stored: dict[str, Any]) -> None:
        for name, state in stored["layers"].items():
            self.evolver.layers[name].load_state_dict(state)  # type: ignore[attr-defined]
        for group, state in stored["optimizers"].items():
            self.optimizers[group].load_state_dict(state)
        self.evolver.load_state_dict(stored["evolver"])

    def everything(self) -> list[Any]:
        evolver = self.evolver
        result: list[Any] = [evolver.update, evolver.grown_total, evolver.dropped_total]
        for group, layers in self.groups.items():
            for name, layer in layers.items():
                state = self.optimizers[group].state[layer.values]
                result += [name, layer.topology.flat.tolist(), layer.values.tolist(), evolver.explored_fraction(name)]
                result += [evolver.initial[name].tolist()]
                result += [state["exp_avg"].tolist(), state["exp_avg_sq"].tolist(), float(state["step"])]
        return result


@pytest.mark.parametrize("keep_regrown", [True, False])
@pytest.mark.parametrize("stop", [1, 2, 5, 11, 20, 22, 25])
def test_a_stored_clock_goes_on_as_if_never_stopped(stop: int, keep_regrown: bool) -> None:
    whole = Run(0, keep_regrown)
    whole.advance(1, stop)
    file = io.BytesIO()
    torch.save(whole.store(), file)
    events_before = len(whole.evolver.events)
    whole.advance(stop + 1, 30)

    file.seek(0)
    resumed = Run(99, keep_regrown)  # another seed: the generators must come from the file
    resumed.load(torch.load(file, weights_only=True))
    assert resumed.evolver.events == []
    resumed.advance(stop + 1, 30)
    assert resumed.everything() == whole.everything()
    assert resumed.evolver.events == whole.evolver.events[events_before:]
    assert (stop >= 25) == (not resumed.evolver.events)


def test_a_stored_clock_does_not_move_with_the_run() -> None:
    run = Run(0, False)
    run.advance(1, 5)
    state = run.evolver.state_dict()
    before = copy.deepcopy(state)
    run.advance(6, 12)
    assert state["generators"] == before["generators"]
    assert (state["update"], state["due"], state["grown_total"]) == (5, before["due"], before["grown_total"])
    for kept in ("explored", "initial"):
        assert all(torch.equal(state[kept][name], before[kept][name]) for name in before[kept])


@pytest.mark.parametrize(
    "groups",
    [
        {"net": ["net.1"]},
        {"net": ["net.0", "net.1"]},
        {"other": ["net.0"]},
        {"net": []},
    ],
)
def test_the_clock_of_another_network_is_refused(groups: dict[str, list[str]]) -> None:
    stored = one_layer(sparse(2, 4, [0, 1]), RewireRule()).state_dict()
    other = TopologyEvolver(
        {group: {name: sparse(2, 4, [0, 1]) for name in names} for group, names in groups.items()},
        RewireRule(),
        seed=0,
    )
    with pytest.raises(TopologyError, match="belongs to a network with other layers"):
        other.load_state_dict(stored)
