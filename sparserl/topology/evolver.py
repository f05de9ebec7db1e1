"""The conductor of topology events: clock, layers, and everything that follows a connection.

The only stateful part of the module. It knows layers by name and a rule; it knows no agent, loss or environment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from sparserl.errors import TopologyError, unknown_name
from sparserl.kernels.flops import count
from sparserl.kernels.program import run_waiting
from sparserl.kernels.recording import each_time
from sparserl.seeding import stream
from sparserl.topology.between_events import BetweenEvents
from sparserl.topology.budget import BUDGET
from sparserl.topology.event import Follower, TopologyEvent
from sparserl.topology.event_clock import EventClock, next_due
from sparserl.topology.history import History
from sparserl.topology.moments import Entries
from sparserl.topology.plan import LayerPlan, check_goal, plan_allocation, plan_together
from sparserl.topology.rewire import RewireRule
from sparserl.topology.structure import EvolvingLayer, FloatArray, LayerView, Positions, TopologyChange
from sparserl.topology.values import NEW_VALUE


class TopologyEvolver:
    """Rewires groups of layers on a clock of gradient updates.

    Per update: `begin_update(n)`, then for each group whose optimizer has stepped, `after_step(group)` and
    `end_update(group)`. A group that does not step at the update when it is due (a delayed actor) has its event at its
    next step, and a layer that is frozen (its values require no gradient) has none; what the end of the schedule asks
    of it is done at the first step after that. With `rule.gradient_batches` k > 1 the event is at the (k - 1)th step
    after that one, and the backward passes of all k updates count, but not those of updates without a step. Groups that
    share a budget (`rule.budget_scope`) have their event together, at the first update from then on at which all of
    them step; batches are the last k of each.

    Args:
        groups: Group name -> layers by full name. One optimizer step moves one group.
        rule: What happens and when; None never changes anything.
        seed: Root seed; each layer draws from its own stream.
        new_value: Name in `sparserl.topology.values.NEW_VALUE`, weight of grown connections.
        goals: Connections of layers at the end of the rule's density schedule; a layer that is absent keeps its number.

    Attributes:
        events: What has happened since the last `take_events`, the initial topologies first.
        grown_total: Connections grown so far, by layer.
        dropped_total: Connections dropped so far, by layer.
        before_event: Called whenever the clock is about to change layers of a group, if not None.

    Raises:
        TopologyError: If two layers share a name, `new_value` is unknown, or a goal is of no layer or does not fit its
            size.
    """

    def __init__(
        self,
        groups: Mapping[str, Mapping[str, EvolvingLayer]],
        rule: RewireRule | None,
        *,
        seed: int,
        new_value: str = "zero",
        goals: Mapping[str, int] | None = None,
    ):
        if new_value not in NEW_VALUE:
            raise TopologyError(unknown_name("new value", new_value, NEW_VALUE))
        names = [name for layers in groups.values() for name in layers]
        if len(set(names)) != len(names):
            raise TopologyError("two layers share a name")
        self.groups = {group: dict(layers) for group, layers in groups.items()}
        self.rule = rule
        self.new_value = new_value
        self.goals = dict(goals or {})
        for name, goal in self.goals.items():
            if name not in names:
                raise TopologyError(unknown_name("layer with a goal", name, names))
            check_goal(goal, self.layers[name].topology, name)
        self.update = 0
        self.before_event: Callable[[], None] | None = None
        self.events: list[TopologyEvent] = []
        self.grown_total = dict.fromkeys(names, 0)
        self.dropped_total = dict.fromkeys(names, 0)
        self._followers: dict[str, list[Follower]] = {name: [] for name in names}
        self._constraints: dict[str, Callable[[LayerView], LayerView]] = {}
        self._group = {name: group for group, layers in groups.items() for name in layers}
        self._between = BetweenEvents(self._group, rule, seed)
        self._rng = {name: stream(seed, "rewire", name) for name in names}
        self._clock = EventClock(groups, rule)
        self._gathered: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {name: [] for name in names}
        self._passed_by: set[str] = set()  # layers that were frozen when the rewiring of their group ended
        self._keeps_all = rule is not None and rule.needs_explored
        self._history = {
            name: History.beginning(layer.topology, keeps_all=self._keeps_all) for name, layer in self.layers.items()
        }
        for name, layer in self.layers.items():
            self._between.note(name, layer, rule)
            self._report(name, "initial", 0, 0)

    @property
    def layers(self) -> dict[str, EvolvingLayer]:
        """All layers by full name."""
        return {name: layer for layers in self.groups.values() for name, layer in layers.items()}

    def take_events(self) -> list[TopologyEvent]:
        """Returns `events` and forgets them."""
        taken, self.events = self.events, []
        return taken

    def follow(self, layer: str, follower: Follower) -> None:
        """Registers data that must follow the connections of `layer`; followers run in order of registration."""
        self._followers[layer].append(follower)

    def set_constraint(self, layer: str, constrain: Callable[[LayerView], LayerView]) -> None:
        """Registers what a learner adds to the view of `layer` before every event: constraint and importance."""
        if layer not in self._followers:
            raise KeyError(layer)
        self._constraints[layer] = constrain

    def set_optimizer(self, layer: str, find: Callable[[], torch.optim.Optimizer]) -> None:
        """Registers what moves the weights of `layer`, where a budget asks for its momentum or a pull for its rate."""
        self._between.optimizers[layer] = find

    def explored_fraction(self, layer: str) -> float:
        """Share of a layer's possible connections that have ever existed; of very many an estimate (`History`).

        Source:
            `R_s` of Liu et al. 2021 (in-time over-parameterisation).
        """
        topology = self.layers[layer].topology
        return self._history[layer].moved_to(topology).n_explored / topology.size

    @property
    def initial(self) -> dict[str, Positions]:
        """Positions at the start of the run, by layer."""
        return {name: history.first for name, history in self._history.items()}

    def initial_overlap(self, layer: str) -> float:
        """Share of a layer's initial connections that exist, in [0, 1]; 1 where there were none.

        A connection that was dropped and has grown again counts.
        """
        return self._history[layer].overlap(self.layers[layer].topology)

    def replace_rule(self, rule: RewireRule) -> None:
        """Goes on by another rule; groups that are off the clock stay off.

        Raises:
            TopologyError: If there was no rule, or only one of the two prunes.
        """
        if self.rule is None or self.rule.prunes != rule.prunes:
            raise TopologyError("a rule can only be replaced by one of the same kind")
        self.rule = rule
        self._clock.follow(rule, self.update)

    def begin_update(self, update: int) -> None:
        """Starts gradient update number `update`, counted from 1; arms capture of samples if an event needs them."""
        self.update = update
        self._clock.begin_update()
        if self.rule is None or not self.rule.needs_samples:
            return
        for group, layers in self.groups.items():
            armed = self.is_due(group) and (self.rule.chooses_by_samples > 0 or not self.rule.is_over(update))
            for name, layer in layers.items():
                layer.capture, layer.activation_pairs = armed, [*self._gathered[name]]
                layer.captures_activations = self.rule.needs_activations

    def after_step(self, group: str) -> None:
        """Call when the group's optimizer has stepped, before what must not move is put back; pulls at the weights.

        Until rewiring is over they move as `BetweenEvents.pull` says, where the rule has `weight_l1` or `weight_noise`.
        """
        if self.rule is not None and self.rule.pulls:
            run_waiting()
            each_time(partial(self._pull, group))

    def _pull(self, group: str) -> None:
        if self.rule is not None and not self._clock.is_stopped(group) and not self.rule.is_over(self.update):
            self._between.pull(self.groups[group], self.rule)

    def replaces_step(self, group: str) -> bool:
        """Whether an event will take the place of the optimizer step that the group would now make."""
        rule = self.rule
        if rule is None or not (rule.replaces_step and self.is_due(group)) or rule.is_over(self.update):
            return False
        return self._clock.is_last_batch(group, rule)

    def end_update(self, group: str) -> list[TopologyEvent]:
        """Call after the group's optimizer has stepped, or an event replaces that; rewires its layers if they are due.

        Returns:
            The events, also appended to `events`; empty between events.
        """
        if self.rule is None:
            return []
        before = len(self.events)
        own = self.groups[group].items() if self._passed_by else ()
        woken = [name for name, layer in own if name in self._passed_by and layer.values.requires_grad]
        if woken:
            self._passed_by.difference_update(woken)
            if BUDGET[self.rule.budget].shares_goals and not self.rule.shrink_at_end:
                self._prune_again(woken[0], self.update + (self.rule.chooses_by_samples > 0))
            else:
                if self.before_event is not None:
                    self.before_event()
                self._shrink(woken, self.rule)
        if not self.is_due(group):
            return self.events[before:]
        over = self.rule.is_over(self.update)
        if not over and self._clock.waits_for_batches(group, self.rule):
            for name, layer in self.groups[group].items():
                # In one layout, which is also the one that a stored sample comes back in: products add in the same
                # order.
                self._gathered[name] = [(x.contiguous(), dy.contiguous()) for x, dy in layer.activation_pairs]
            return []
        together = [group] if self.rule.budget_scope == "group" else self._sharing()
        if not self._clock.have_all_stepped(group, together, gathering=not over):
            return []
        if self.before_event is not None:
            self.before_event()
        layers = {name: layer for one in together for name, layer in self.groups[one].items()}
        names = [name for name, layer in layers.items() if layer.values.requires_grad]  # others stay
        (self._shrink if over else self._rewire)(names, self.rule)
        self._gathered |= {name: [] for name in layers}
        self._clock.restart(together, None if over else next_due(self.rule, self.update))
        if over:
            self._passed_by.update(layers.keys() - set(names))
        return self.events[before:]

    def _sharing(self) -> list[str]:
        """Groups that share a budget at this update: those that have layers and are due."""
        return [group for group, layers in self.groups.items() if layers and self.is_due(group)]

    def adopt(self, layer: str) -> None:
        """Takes note that a layer got other connections than an event gave it, by a loaded state.

        They count as explored. If the density schedule is over and the layer, or all with which it shares
        goals, are above them, they are pruned again after the next step of the group.

        Args:
            layer: Full name.
        """
        topology = self.layers[layer].topology
        self._between.note_loaded(layer, self.layers[layer], self.rule)
        self._history[layer] = self._history[layer].moved_to(topology)
        group = self._group[layer]
        if self._clock.is_stopped(group):
            self._prune_again(layer, self.update)

    def _prune_again(self, layer: str, due: int) -> None:
        """Lets the layers that share goals with one have an event after the end, if they are above them."""
        groups = self.groups if self.rule is not None and self.rule.budget_scope == "all" else [self._group[layer]]
        if self._is_above_goals(layer):
            for group in groups:
                self._clock.set_due(group, due)

    def _is_above_goals(self, layer: str) -> bool:
        """Whether a layer, or all that share its goals, have more connections than they are to end with."""
        if self.rule is None or not BUDGET[self.rule.budget].shares_goals:
            names = [layer]
        else:
            names = list(self.layers if self.rule.budget_scope == "all" else self.groups[self._group[layer]])
        nnz = {name: self.layers[name].topology.nnz for name in names}
        return sum(nnz.values()) > sum(self.goals.get(name, count) for name, count in nnz.items())

    def is_due(self, group: str) -> bool:
        """Whether a step of the group at this update has something to follow it."""
        return self._clock.is_due(group, self.update)

    def allocate(self, layer: str, count: int, new_value: str | None = None) -> TopologyEvent:
        """Gives a layer `count` new connections now, between the neurons that its constraint leaves open.

        Args:
            layer: Full name.
            count: New connections, >= 0.
            new_value: As at construction; that of the evolver if None.

        Raises:
            TopologyError: If fewer positions are free or `new_value` is unknown.
        """
        new_value = self.new_value if new_value is None else new_value
        if new_value not in NEW_VALUE:
            raise TopologyError(unknown_name("new value", new_value, NEW_VALUE))
        rng = self._rng[layer]
        change = plan_allocation(self._view(layer), count, rng)
        return self.apply(layer, change, "allocate", NEW_VALUE[new_value](change, rng))

    def begun_anew(self, layer: str, entries: Entries) -> None:
        """Takes note that some weights of a layer were set by something else than steps; other layers are left out.

        Args:
            layer: Full name.
            entries: Of its weights.
        """
        if layer in self._group:
            self._between.note_anew(layer, self.layers[layer], entries)

    def stop(self, group: str) -> None:
        """Takes a group off the clock for good: from now on its layers change only by explicit calls.

        Raises:
            TopologyError: If the layers of the group would be left at another density than they are to have.
        """
        for layer in self.groups[group]:
            if layer in self.goals:
                raise TopologyError(f"layer {layer!r} is pruned by a schedule, which cannot be stopped")
        self._clock.set_due(group, None)

    def rewire(self, layer: str, rule: RewireRule | None = None) -> TopologyEvent:
        """Rewires a layer now, whatever the clock says.

        Args:
            layer: Full name.
            rule: That of the evolver if None.

        Raises:
            TopologyError: If there is no rule.
        """
        rule = self.rule if rule is None else rule
        if rule is None:
            raise TopologyError("a layer can only be rewired by a rule")
        return self._rewire([layer], rule)[0]

    def _rewire(self, names: Sequence[str], rule: RewireRule) -> list[TopologyEvent]:
        """Rewires layers of one group together."""
        plans, events = self._plans(names, rule), []
        dropped, existed = sum(len(plan.dropped) for plan in plans), sum(plan.view.topology.nnz for plan in plans)
        for name in names:
            plan, rng = plans.pop(0), self._rng[name]  # what a layer needed is gone when its turn is over
            change = plan.rewired(rule, rng)
            kind = "prune" if rule.prunes and not change.grown else "rewire"
            if kind == "rewire" and rule.needs_samples:
                of_batches = sum(2 * len(y) * x.size for x, y in plan.view.samples)
                count(rule.dense_products * of_batches)
            events.append(self.apply(name, change, kind, NEW_VALUE[self.new_value](change, rng)))
        for group in {self._group[name] for name in names}:
            self._between.adapt(group, rule, self.update, dropped, existed)
        return events

    def _plans(self, names: Sequence[str], rule: RewireRule) -> list[LayerPlan]:
        if not names:
            return []
        views = [self._view(name, rule) for name in names]
        if rule.chooses_by_samples:
            count(sum(2 * view.topology.nnz * x.shape[1] for view in views for x, _ in view.samples))
        firsts = [self._history[name].n_first for name in names]
        return plan_together(rule, views, self.update, [self.goals.get(name) for name in names], firsts)

    def _shrink(self, names: Sequence[str], rule: RewireRule) -> None:
        if not (rule.shrink_at_end or (rule.prunes and any(map(self._is_above_goals, names)))):
            return
        kind = "shrink" if rule.shrink_at_end else "prune"
        # Without a final drop only what the density schedule still asks of a group that stepped too late.
        rule = rule if rule.shrink_at_end else replace(rule, drop_fraction=0.0)
        for name, plan in zip(names, self._plans(names, rule), strict=True):
            if rule.shrink_at_end or plan.for_good:
                self.apply(name, plan.shrunk(), kind, np.empty(0, np.float32))

    def _view(self, layer: str, rule: RewireRule | None = None) -> LayerView:
        run_waiting()
        of_layer = self.layers[layer]
        view = of_layer.view()
        if rule is not None:
            view = replace(view, **self._between.asked(layer, of_layer, rule, self._history[layer]))
        return self._constraints[layer](view) if layer in self._constraints else view

    def apply(
        self, name: str, change: TopologyChange, kind: str, grown_values: float | FloatArray = 0.0
    ) -> TopologyEvent:
        """Carries out a change that was planned on a layer as it is: the layer first, then everything that follows it.

        Args:
            name: Full name of the layer.
            change: From `exchange`.
            kind: What to call it in the event.
            grown_values: Weights of grown connections.
        """
        run_waiting()
        layer = self.layers[name]
        layer.capture, layer.activation_pairs = False, []
        positions = change.old.flat, change.new.flat  # all that follows asks for them: formed once while they are held
        layer.apply_change(change, grown_values)
        for follower in self._followers[name]:
            follower(change, grown_values)
        self._history[name] = self._history[name].moved_to(change.new)
        self._between.note(name, layer, self.rule)
        del positions
        return self._report(name, kind, change.grown, change.dropped)

    def _report(self, name: str, kind: str, grown: int, dropped: int) -> TopologyEvent:
        self.grown_total[name] += grown
        self.dropped_total[name] += dropped
        topology, explored = self.layers[name].topology, self._history[name].n_explored
        event = TopologyEvent(self.update, name, kind, topology.nnz, topology.size, grown, dropped, explored)
        self.events.append(event)
        return event

    def state_dict(self) -> dict[str, Any]:
        """Clock, counters, generators, explored positions and gathered batches: tensors, numbers and strings only."""
        return {
            **self._between.state_dict(),
            "update": self.update,
            **self._clock.state_dict(),
            "grown_total": dict(self.grown_total),
            "dropped_total": dict(self.dropped_total),
            "generators": {name: rng.bit_generator.state for name, rng in self._rng.items()},
            "initial": {name: torch.from_numpy(flat) for name, flat in self.initial.items()},
            "explored": {name: torch.from_numpy(history.stored) for name, history in self._history.items()},
            "gathered": {name: [list(sample) for sample in samples] for name, samples in self._gathered.items()},
            **({"passed_by": sorted(self._passed_by)} if self._passed_by else {}),
        }

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Continues where `state_dict` was taken; `events` restarts empty.

        Args:
            state: From `state_dict`.
            strict: Accepted because Stable-Baselines3 passes it; a state that does not fit is refused either way.

        Raises:
            TopologyError: If the state belongs to other layers or groups.
        """
        del strict
        if set(state["explored"]) != set(self._history) or not self._clock.is_state_of(state):
            raise TopologyError("the stored topology clock belongs to a network with other layers")
        self.update = state["update"]
        self._clock.load_state_dict(state)
        self._between.load_state_dict(state)
        self.grown_total = dict(state["grown_total"])
        self.dropped_total = dict(state["dropped_total"])
        for name, generator_state in state["generators"].items():
            self._rng[name].bit_generator.state = generator_state
        first, stored, keeps_all = state["initial"], state["explored"], self._keeps_all
        self._history = {  # the layers may not have been loaded yet
            name: History.told(layer.topology, first[name].numpy(), stored[name].numpy(), keeps_all=keeps_all)
            for name, layer in self.layers.items()
        }
        self._gathered = {name: [(x, dy) for x, dy in samples] for name, samples in state["gathered"].items()}
        self._passed_by = set(state.get("passed_by", ()))
        self.events = []
