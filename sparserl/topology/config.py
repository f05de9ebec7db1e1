"""What a user says about the topology of networks, resolved to the parts of `sparserl.topology`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sparserl.errors import ConfigError, TopologyError, unknown_name
from sparserl.ranges import check_ranges, check_wait
from sparserl.seeding import stream
from sparserl.topology.config_checks import check_options, check_with_rule
from sparserl.topology.config_options import DENSITY_SUFFIX, OF_REWIRING, OWN_DENSITIES, RULE_FIELDS, TopologyOptions
from sparserl.topology.density import ALLOCATIONS, Shape, check_can_be_met, erdos_renyi, exact_nnz, per_layer
from sparserl.topology.group_sizes import check_divides, nearest_multiple
from sparserl.topology.initial_topology import INITIAL
from sparserl.topology.methods import METHODS, Method, window
from sparserl.topology.moments import check_moments, check_momentum
from sparserl.topology.one_shot import ONE_SHOT
from sparserl.topology.rewire import RewireRule
from sparserl.topology.schedules import DENSITY
from sparserl.topology.structure import SparseTopology

DENSITY_OF_ALL = 0.5
"""Where neither a density nor factors are given."""
WIDEST = {"first_update": 1, "last_update": sys.maxsize}
"""The window of rewiring while the length of the run, which decides it, is not known."""
_NO_OWN_DENSITY: dict[str, Any] = dict.fromkeys(OWN_DENSITIES)


@dataclass(frozen=True)
class TopologyConfig(TopologyOptions):
    """Which connections the networks have, and how they change while learning.

    Its fields are those of `TopologyOptions`; every one but `method` that is None is taken from the method.

    Raises:
        ConfigError: If a name is unknown.
        TopologyError: If a number is out of range.
    """

    def __post_init__(self) -> None:
        check_ranges(self, "topology.", hyphens=False)
        for name in ("density", *OWN_DENSITIES, "epsilon"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.density is not None:
            object.__setattr__(self, "epsilon", None)
        check_options(self)
        check_with_rule(self, self._rule(WIDEST))

    @property
    def compares_layers(self) -> bool:
        """Whether layers begin with the best connections of all of them, for which there is one density."""
        name = self.part("initial_topology")
        one_density = self.epsilon is None and not isinstance(self.density, tuple)
        return one_density and name in ONE_SHOT and ONE_SHOT[name].together

    def judged_counts(self, begins: Sequence[tuple[Shape, float, float | None]]) -> int | list[int]:
        """How many connections scores choose: of each layer, or of all of them together.

        Args:
            begins: Shape, density and first density of each layer that takes part.

        Raises:
            TopologyError: As `first_nnz`.
        """
        if not self.compares_layers:
            return [self.first_nnz(*begin) for begin in begins]
        density = self.density if isinstance(self.density, int | float) else DENSITY_OF_ALL
        return exact_nnz((sum(n_out * n_in for (n_out, n_in), *_ in begins), 1), density, self.pairs)

    @property
    def judged_by_batch(self) -> bool:
        """Whether the connections that networks begin with depend on a batch and its loss."""
        name = self.part("initial_topology")
        return name in ONE_SHOT and ONE_SHOT[name].order > 0

    @classmethod
    def coerce(cls, given: TopologyConfig | Mapping[str, Any] | None) -> TopologyConfig:
        """Accepts a config, a mapping of its fields, or None for the defaults.

        Raises:
            ConfigError: If the mapping has a key that is no field.
        """
        if isinstance(given, TopologyConfig):
            return given
        fields = [field.name for field in dataclasses.fields(cls)]
        values = dict(given or {})
        for key in values:
            if key not in fields:
                raise ConfigError(unknown_name("topology key", key, fields))
        return cls(**values)

    @property
    def base(self) -> Method:
        """The method that fields override."""
        return METHODS[self.method]

    def resolved(self) -> TopologyConfig:
        """The same with the values that hold in place of None.

        None stays where no value holds: rules of a topology that never changes, the update at which rewiring begins or
        ends where a share of the run says it, factors beside a density, a density of one group that has that of all.
        """
        return dataclasses.replace(
            self, **{name: value for name, value in self._usual().items() if getattr(self, name) is None}
        )

    def _usual(self) -> dict[str, Any]:
        """What holds where fields are None, by field."""
        method = self.base
        if method.dense:
            return {}
        usual: dict[str, Any] = {
            "output_layer": "dense" if method.output_layer_dense else "sparse",
            "initial_topology": method.initial_topology,
            "initial_value": method.initial_value,
        }
        if self.epsilon is None and any(getattr(self, name) is None for name in OWN_DENSITIES):
            usual["density"] = DENSITY_OF_ALL
        if method.rule is not None:
            usual |= {name: getattr(method.rule, name) for name in RULE_FIELDS}
            usual |= {name: getattr(method, name) for name in OF_REWIRING}
            for update, share in (("first_update", "begin_fraction"), ("last_update", "end_fraction")):
                by_share = getattr(self, update) is None and self.part(share) is not None
                del usual[update if by_share else share]
        return usual

    def part(self, name: str) -> Any:
        """A field of this config or, where that is None, of the method."""
        given = getattr(self, name)
        return getattr(self.base, name) if given is None else given

    def part_of_rule(self, name: str) -> Any:
        """The same of the rule of a method that rewires."""
        given = getattr(self, name)
        return getattr(self.base.rule, name) if given is None else given

    def check_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Raises TopologyError if an optimizer does not keep of each weight what events ask for."""
        check_moments(self.part("moments"), optimizer)
        rule = self.rule()
        if rule is not None and rule.needs_momentum:
            check_momentum(optimizer)

    def labels(self, algo: str) -> list[str]:
        """What is special about it for the agent `algo`, as parts of the name of a run."""
        method = [] if self.method == algo else [self.method]
        of_groups = {name.removesuffix(DENSITY_SUFFIX): getattr(self, name) for name in OWN_DENSITIES}
        given = {} if self.base.dense else {"d": self.density, **of_groups}
        densities = [f"{of}{density:g}" for of, density in given.items() if isinstance(density, float)]
        pairs = [] if self.pairs == 1 else [f"pairs{self.pairs}"]
        return [*method, *densities, *pairs]

    @property
    def open_ends(self) -> tuple[str, ...]:
        """Those of `first_update` and `last_update` that only the length of the run decides; see `for_run`."""
        given = {name: getattr(self, name) for name in RULE_FIELDS if getattr(self, name) is not None}
        fractions = {name: self.part(name) for name in ("begin_fraction", "end_fraction")}
        return dataclasses.replace(self.base, **fractions).needs_run_length(given)

    def rule(self) -> RewireRule | None:
        """The rule of drop, grow and schedule; None if the topology never changes.

        Until `for_run` knows the length of the run, what that decides is as in the run of the method's source, or as
        wide as can be where that does not fit.

        Raises:
            TopologyError: If pruning would end before it begins.
        """
        try:
            return self._rule({})
        except TopologyError:
            if not self.open_ends:
                raise
            return self._rule(WIDEST)

    def _rule(self, instead: Mapping[str, Any]) -> RewireRule | None:
        """The rule, with `instead` in place of what the method says."""
        if self.base.rule is None:
            return None
        given = {name: getattr(self, name) for name in RULE_FIELDS if getattr(self, name) is not None}
        rule = dataclasses.replace(self.base.rule, **{**instead, **given})
        if rule.needs_importance:
            raise ConfigError("criteria by importance need a continual learner that measures it")
        return rule

    def check_waits(self, total_updates: int) -> None:
        """Raises ConfigError if rewiring or recycling would begin after a run of `total_updates` gradient updates."""
        check_wait("topology.recycle_interval", self.recycle_interval, total_updates, "gradient updates")
        rule = self.base.rule
        if rule is not None and self.first_update != rule.first_update:  # which a resolved config says by itself
            check_wait("topology.first_update", self.first_update, total_updates, "gradient updates")

    def for_run(self, total_updates: int) -> TopologyConfig:
        """The same with the updates at which rewiring begins and ends fixed for a run of `total_updates` of them.

        Raises:
            ConfigError: If rewiring or recycling would begin after the run, or after rewiring has ended.
            TopologyError: If pruning would end before it begins, or after the run.
        """
        self.check_waits(total_updates)
        if self.base.rule is None:
            return self
        of_run = window(total_updates, self.part("begin_fraction"), self.part("end_fraction"))
        open_ends: dict[str, Any] = {name: update for name, update in of_run.items() if getattr(self, name) is None}
        fixed = dataclasses.replace(self, **open_ends) if open_ends else self
        rule = fixed.rule()
        assert rule is not None
        last, asked = (
            rule.last_update,
            self.first_update is not None and self.first_update != self.base.rule.first_update,
        )
        if asked and last is not None and rule.first_update > last:
            raise ConfigError(
                f"topology.first_update {rule.first_update} is after the last update of rewiring, {last}: lower it, or "
                "raise topology.last_update"
            )
        rule.fitting(total_updates)
        return fixed

    def of(self, group: str) -> TopologyConfig:
        """What holds for a group of an agent's networks: the same with its density, if it has one of its own."""
        of_group = getattr(self, f"{group}{DENSITY_SUFFIX}", None)
        density = self.density if of_group is None else of_group
        return dataclasses.replace(self, density=density, **_NO_OWN_DENSITY)

    def reaches(self, archs: Iterable[Sequence[int]]) -> bool:
        """Whether a network takes part with a layer at least, or no layer of this method would; given hidden widths."""
        return self.base.dense or not self.output_layer_is_dense or any(archs)

    @property
    def output_layer_is_dense(self) -> bool:
        """Whether the last layer of a network stays dense."""
        return self.base.output_layer_dense if self.output_layer is None else self.output_layer == "dense"

    def densities_at_first(self, shapes: Sequence[Shape]) -> Sequence[float | None]:
        """What `densities` are where layers begin, by `initial_density`; None where the density schedule says it."""
        at_first = self._at_first()
        return [None] * len(shapes) if at_first is None else at_first.densities(shapes)

    def shared_out_at_first(self, shapes: Sequence[Shape]) -> Sequence[float | None]:
        """The same for `shared_out`."""
        at_first = self._at_first()
        return [None] * len(shapes) if at_first is None else at_first.shared_out(shapes)

    def _at_first(self) -> TopologyConfig | None:
        initial = self.part("initial_density") if self.base.rule is not None else None
        return None if initial is None else dataclasses.replace(self, density=initial, **_NO_OWN_DENSITY)

    def first_densities(self, shapes: Sequence[Shape]) -> list[float]:
        """Shares of connections that the layers of one network begin with; arguments and errors as in `densities`."""
        layers = zip(shapes, self.densities(shapes), self.densities_at_first(shapes), strict=True)
        return [self.first_nnz(shape, own, first) / (shape[0] * shape[1]) for shape, own, first in layers]

    def first_nnz(self, shape: Shape, density: float, first_density: float | None = None) -> int:
        """Connections that a layer begins with.

        Args:
            shape: (n_out, n_in).
            density: From `densities` or `shared_out`.
            first_density: The same of `densities_at_first` or `shared_out_at_first`.

        Raises:
            TopologyError: If it would begin with fewer than it is to have.
        """
        goal = exact_nnz(shape, density, self.pairs)
        rule = self.rule()
        if rule is not None and rule.leaves_some_unused:
            return min(shape[0] * shape[1], round(rule.backward_factor * goal))
        if rule is None or not rule.prunes:
            return goal
        if first_density is None:
            first = DENSITY[rule.density_schedule].first(shape[0] * shape[1], goal)
            return nearest_multiple(first, self.pairs)
        first = exact_nnz(shape, first_density, self.pairs)
        if first < goal:
            raise TopologyError(
                f"a layer of {shape[0]} x {shape[1]} would begin with {first} connections and is to have {goal}: raise "
                f"topology.initial_density {self.part('initial_density'):g}"
            )
        return first

    def densities(self, shapes: Sequence[Shape]) -> list[float]:
        """Density of each layer of one network.

        Args:
            shapes: (n_out, n_in) of its layers, the output layer last.

        Raises:
            TopologyError: If explicit densities or epsilon do not match the number of layers that take part, or epsilon
                leaves no layer sparse (it depends on widths).
        """
        if self.base.dense:
            return [1.0] * len(shapes)
        part = shapes[:-1] if self.output_layer_is_dense else shapes
        if not part:
            return [1.0] * len(shapes)
        result = self.shared_out(part)
        return [*result, 1.0] if self.output_layer_is_dense else result

    def shared_out(self, shapes: Sequence[Shape]) -> list[float]:
        """Density of each of the layers that take part.

        Args:
            shapes: (n_out, n_in) of these layers.

        Raises:
            TopologyError: As `densities`.
        """
        if self.base.dense:
            return [1.0] * len(shapes)
        if isinstance(self.density, tuple):
            return per_layer(shapes, self.density)
        if self.epsilon is None:
            of_output = () if self.output_density is None else (self.output_density,)
            density = DENSITY_OF_ALL if self.density is None else self.density
            check_can_be_met(density, shapes)
            return ALLOCATIONS[self.allocation](shapes, density, *of_output)
        densities = erdos_renyi(shapes, self.epsilon)
        if all(density == 1.0 for density in densities):
            widths = [shape[0] for shape in shapes]
            raise TopologyError(f"epsilon {self.epsilon} makes every layer of widths {widths} dense; set a density")
        return densities

    def used(self, shape: Shape, density: float) -> int | None:
        """Connections of a layer of this density that passes use; None where they use all that it has."""
        rule = self.rule()
        return exact_nnz(shape, density) if rule is not None and rule.leaves_some_unused else None

    def goal(self, shape: Shape, density: float) -> int | None:
        """Connections that a layer of this density is to have at the end of pruning, if there is any."""
        rule = self.rule()
        return exact_nnz(shape, density, self.pairs) if rule is not None and rule.prunes else None

    def initial(
        self, shape: Shape, density: float, seed: int, name: str, first_density: float | None = None
    ) -> SparseTopology:
        """Connections that a layer begins with, where scores of its weights do not decide.

        Args:
            shape: (n_out, n_in).
            density: From `densities` or `shared_out`, below 1.
            seed: Root seed.
            name: Of the layer; connections are drawn from its own stream.
            first_density: The same of `densities_at_first` or `shared_out_at_first`.

        Raises:
            TopologyError: If the outputs do not come in groups of `pairs`, or the layer would begin with fewer
                connections than it is to have.
        """
        n_out, n_in = shape
        check_divides(self.pairs, name, n_out)
        first = self.first_nnz(shape, density, first_density)
        rng = stream(seed, "initial_topology", name)
        return INITIAL[self.part("initial_topology")](n_out, n_in, first, rng, self.pairs)


def beside_method(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a config without those that say what its method does anyway, as a resolved config does.

    Args:
        given: Some fields; how dense networks are stays among them.
    """
    method = given.get("method")
    usual = TopologyConfig(method=method)._usual() if method in METHODS else {}
    return {
        name: value for name, value in given.items() if name == "density" or name not in usual or value != usual[name]
    }
