"""What tests of sub networks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from sparserl.continual.shared.frozen import FrozenEntries
from sparserl.continual.shared.sub_networks import SubNetworks
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.layers.fused_adam import state_from_tree, state_tree
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.moments import OptimizerMoments
from sparserl.topology.rewire import RewireRule, random_topology

N_TASKS, N_IN, HIDDEN, CONNECTIONS, SELECTED, RESERVED = 3, 6, (14, 12), (20, 16), (7, 6), (3, 2)


NAMES = ["actor.pi.trunk.0", "actor.pi.trunk.1"]


OTHER = "critic.qf0.0"


class Agent:
    """An actor with a head for each task, and a critic, which share an evolver; one optimizer for all tasks."""

    def __init__(self, *, hidden: Sequence[int] = HIDDEN, seed: int = 0, released: bool = True, **options: Any):
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        sides = [(N_IN, hidden[0]), (hidden[0], hidden[1])]
        self.trunk = [SparseLinear(random_topology(n_out, n_in, 15, rng)) for n_in, n_out in sides]
        self.heads = [nn.Linear(hidden[1], 2) for _ in range(N_TASKS)]
        self.critic = SparseLinear(random_topology(4, 5, 9, rng))
        groups = {"actor": dict(zip(NAMES, self.trunk, strict=True)), "critic": {OTHER: self.critic}}
        rule = RewireRule("connection_importance", "neuron_importance", drop_fraction=0.3)
        self.evolver = TopologyEvolver(groups, rule, seed=seed)
        self.modules = nn.ModuleList([*self.trunk, *self.heads])
        self.optimizer = torch.optim.Adam(self.modules.parameters(), 0.05, weight_decay=0.1)
        for name, layer in groups["actor"].items():
            self.evolver.follow(name, OptimizerMoments(self.optimizer, layer.values))
        own: dict[str, Any] = {"selected": SELECTED, "reserved": RESERVED, "n_tasks": N_TASKS, "owns_biases": True}
        self.owned = SubNetworks(self.evolver, NAMES, **{**own, "seed": seed, **options})
        self.frozen = FrozenEntries()
        self.updates = 0
        if released:
            self.owned.release()

    def begin(self, task: int, connections: Sequence[int] = CONNECTIONS) -> None:
        self.owned.begin_task(task, connections, "xavier")
        self.owned.freeze(self.frozen)

    def step(self) -> None:
        """Makes the output of the task's head small, for inputs of its own."""
        rng = np.random.default_rng([self.owned.task, self.updates])
        x = torch.from_numpy(rng.normal(size=(8, N_IN)).astype(np.float32))
        self.optimizer.zero_grad()
        loss = (self.network(self.owned.task)(x) - 1.0).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.owned.before_step()
        self.frozen.before_step()
        self.optimizer.step()
        self.frozen.after_step(self.optimizer)
        self.owned.after_step()
        self.updates += 1

    def rewire(self) -> None:
        self.evolver.begin_update(self.updates)
        for name in NAMES:
            self.evolver.rewire(name)
        self.owned.freeze(self.frozen)

    def learn(self, task: int) -> None:
        """Three times two steps, with a topology event between them."""
        self.begin(task)
        self.go_on()

    def go_on(self) -> None:
        for events_left in (2, 1, 0):
            self.step()
            self.step()
            if events_left:
                self.rewire()
        self.owned.reserve()

    def network(self, task: int) -> SparseMLP:
        return SparseMLP([*self.trunk, self.heads[task]])

    def view(self, task: int) -> SparseMLP:
        return SparseMLP([*self.owned.task_layers(task), self.heads[task]])

    def state(self) -> dict[str, Any]:
        return {
            "modules": dict(self.modules.state_dict()),
            "optimizer": state_tree(self.optimizer.state_dict()),
            "frozen": self.frozen.state_dict(self.modules),
            "owned": self.owned.state_dict(),
            "evolver": self.evolver.state_dict(),
            "updates": self.updates,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.modules.load_state_dict(state["modules"])
        self.optimizer.load_state_dict(state_from_tree(state["optimizer"]))
        self.frozen.load_state_dict(self.modules, state["frozen"])
        self.owned.load_state_dict(state["owned"])
        self.evolver.load_state_dict(state["evolver"])
        self.updates = state["updates"]


Kept = list[tuple[list[int], torch.Tensor, torch.Tensor]]


def kept(agent: Agent, task: int) -> Kept:
    """Positions, weights and biases of a task's layers."""
    found = []
    for view in agent.owned.task_layers(task):
        assert view.bias is not None
        found.append((view.topology.flat.tolist(), view.values.detach().clone(), view.bias.detach().clone()))
    return found


def assert_same(now: Kept, then: Kept) -> None:
    for own, other in zip(now, then, strict=True):
        assert own[0] == other[0]
        assert torch.equal(own[1], other[1])
        assert torch.equal(own[2], other[2])
