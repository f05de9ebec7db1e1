"""What a user says about the topology of networks: plain data, resolved to the parts of `sparserl.topology`.

Longer than other files because every option stands here beside its description.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sparserl.errors import ConfigError, TopologyError, unknown_name
from sparserl.ranges import (
    AtLeastOne,
    Count,
    CountOrZero,
    NotNegative,
    Positive,
    PositiveShare,
    Share,
    ShareBelowOne,
    check_ranges,
)
from sparserl.seeding import stream
from sparserl.topology import density as allocation
from sparserl.topology.budget import BUDGET, SCOPES
from sparserl.topology.criteria import DROP, GROW
from sparserl.topology.density import Shape, exact_nnz
from sparserl.topology.fan_in import FAN_INS
from sparserl.topology.group_sizes import check_divides, check_pairs, nearest_multiple
from sparserl.topology.initial_topology import INITIAL
from sparserl.topology.methods import METHODS, Method, window
from sparserl.topology.moments import MOMENTS
from sparserl.topology.one_shot import ONE_SHOT
from sparserl.topology.rewire import RewireRule
from sparserl.topology.schedules import DECAY, DENSITY
from sparserl.topology.structure import SparseTopology
from sparserl.topology.target import TARGET
from sparserl.topology.values import INITIAL_VALUE, NEW_VALUE

ALLOCATIONS: dict[str, Callable[..., list[float]]] = {
    "erk": allocation.erk,
    "uniform": allocation.uniform,
    "erk_plus": allocation.erk_plus,
    "uniform_plus": allocation.uniform_plus,
}
OF_OUTPUT_LAYER = ("erk_plus", "uniform_plus")
"""Those that treat the output layer in a way of their own."""
PARTS: dict[str, tuple[str, Collection[str]]] = {
    "allocation": ("allocation", ALLOCATIONS),
    "output_layer": ("output layer", ("dense", "sparse")),
    "drop": ("drop criterion", DROP),
    "grow": ("grow criterion", GROW),
    "decay": ("drop fraction decay", DECAY),
    "density_schedule": ("density schedule", DENSITY),
    "budget": ("budget", BUDGET),
    "budget_scope": ("budget scope", SCOPES),
    "fan_in": ("fan-in", FAN_INS),
    "initial_topology": ("initial topology", {**INITIAL, **ONE_SHOT}),
    "initial_value": ("initial value", INITIAL_VALUE),
    "new_value": ("new value", NEW_VALUE),
    "moments": ("moments", MOMENTS),
    "target": ("target policy", TARGET),
}
"""Fields that name an entry of a table: what it is called, and the table."""
RECYCLE_BY = ("dormant", "relevance")
"""What decides which neurons are recycled; `sparserl.layers.activity` says how."""
DENSITY_SUFFIX = "_density"
"""Of an option for the density of one group of networks, whose name stands before it."""
RULE_FIELDS = tuple(field.name for field in dataclasses.fields(RewireRule))
DENSITY_OF_ALL = 0.5
"""Where neither a density nor factors are given."""
OF_REWIRING = ("initial_density", "begin_fraction", "end_fraction", "new_value", "moments", "target")
"""What else has no effect where nothing is ever rewired."""
WIDEST = {"first_update": 1, "last_update": sys.maxsize}
"""The window of rewiring while the length of the run, which decides it, is not known."""


@dataclass(frozen=True)
class TopologyConfig:
    """Which connections the networks have, and how they change while learning.

    Every field but `method` that is None is taken from the method (`sparserl list methods`).

    Raises:
        ConfigError: If a name is unknown.
        TopologyError: If a number is out of range.
    """

    method: str = "ds_td3"
    """Named combination: dense, static, set, rigl, set_itop, rigl_itop, mest, mest_em, ds_td3, ds_sac, anf, snfs,
    dsr, deepr, ctre, chts, top_kast, srigl, snip, grasp, gmp, imp, lamp, global_magnitude, obd, granet, granet_sparse.
    What a preset or config file says beside its method, such as densities or factors, stays with the method that is
    given here; dense reads none. What it says as its method does anyway goes with that method."""
    density: PositiveShare | tuple[PositiveShare, ...] | None = None
    """Share of connections that exist, in (0, 1], at the end of pruning if there is any: one for all layers that take
    part (see `allocation`), or one for each of them. Replaces `epsilon` when both are given; 0.5 when neither is."""
    actor_density: PositiveShare | tuple[PositiveShare, ...] | None = None
    """The same for the actor alone; as the other networks if None."""
    critic_density: PositiveShare | tuple[PositiveShare, ...] | None = None
    """The same for the critics alone; as the other networks if None."""
    epsilon: tuple[Positive, ...] | None = None
    """Erdos-Renyi factor of each layer that takes part, or one for all (lambda in the DS-TD3 paper); what density it
    makes depends on layer widths."""
    initial_density: PositiveShare | None = None
    """Share of connections that exist at first where `density_schedule` moves it, in (0, 1]; as the schedule says if
    None: all, or for `surplus` a fifth more than at the end."""
    allocation: Literal["erk", "uniform", "erk_plus", "uniform_plus"] = "erk"
    """How one density is shared out among layers. The output layer has `output_density` by erk_plus, and at least a
    fifth of its connections by uniform_plus."""
    output_density: PositiveShare | None = None
    """Density of the output layer by the allocation erk_plus, in (0, 1]; it is outside the budget of the others."""
    output_layer: Literal["dense", "sparse"] | None = None
    """Whether the last layer of each network takes part."""
    drop: str | None = None
    """Drop criterion: weight_magnitude, signed_magnitude, magnitude_and_gradient, below_threshold, sign_change,
    fisher."""
    grow: str | None = None
    """Grow criterion: random, random_other, random_unfired, gradient, cosine, cosine_or_random, paths,
    paths_soft."""
    drop_fraction: ShareBelowOne | None = None
    """Share of live connections dropped at an event, in [0, 1)."""
    decay: Literal["constant", "cosine", "cosine_floor", "staged"] | None = None
    """How the drop fraction changes over the run: not at all, to 0 or to a hundredth along a cosine, or to a half and
    to 0 at 56 % and 75 % of it."""
    density_schedule: Literal["constant", "linear", "cubic", "geometric", "surplus"] | None = None
    """How the number of connections changes while rewiring: not at all; from the initial density (all, unless
    `initial_density` says less) to `density` along a line, a cubic or, for geometric, by the same share of what is left
    at each event; or, for surplus, a fifth more than `density` that every event exchanges, half of that from 56 % of
    the run on and none from 75 %."""
    schedule_share: PositiveShare | None = None
    """Share of the updates from the first to the last event at which `density_schedule` ends, in (0, 1]."""
    gradient_batches: Count | None = None
    """Consecutive updates of a network over whose gradients growth by gradient and the drop fisher average, or over
    whose activations growth by cosine compares neurons, >= 1."""
    gradient_weight: NotNegative | None = None
    """Of |gradient| beside |weight| in the drop by magnitude_and_gradient, >= 0."""
    drop_threshold: Positive | None = None
    """|weight| up to which connections go at the first event by the drop below_threshold; it is halved and doubled
    later, so that about `drop_fraction` go."""
    weight_l1: NotNegative | None = None
    """Pull of each weight toward 0 at each step while rewiring goes on, in units of the learning rate, >= 0 (DeepR)."""
    weight_noise: NotNegative | None = None
    """Standard deviation of normal noise that is added to each weight at each step likewise, in the same unit, >= 0."""
    weight_l2: NotNegative | None = None
    """Pull of each weight toward 0 at each step likewise, in proportion to the weight, >= 0; divided by the density of
    the connections in use for those that are not (Top-KAST)."""
    backward_factor: AtLeastOne | None = None
    """Connections that are stored and learn for each one that passes use, >= 1 (Top-KAST: the backward set over the
    forward set; `density` is of the latter). Those in use are the largest at each event, and what drops and grows is
    among the others; 1: all are in use."""
    budget: Literal["own", "global_magnitude", "lamp", "fisher", "survivors", "momentum"] | None = None
    """What the layers of a network share: nothing, one threshold of what `density_schedule` takes (of |weight|, of
    LAMP's scores, or of squared gradient times squared weight), or what an event grows, by how many connections each
    has left or by the mean momentum of its connections."""
    budget_scope: Literal["group", "all"] | None = None
    """Whether each network of an agent (actor, critics) has that budget by itself, or all of them share it: events are
    then at updates at which all of them step, and connections move between them."""
    fan_in: Literal["free", "constant", "of_four", "of_eight"] | None = None
    """Whether events leave each neuron as many inputs, or one more, or as many of each four or eight consecutive inputs
    (N:M sparsity; initial_topology likewise); with growth by a score."""
    salient_share: ShareBelowOne | None = None
    """Of the mean fan-in, what a neuron needs in salient connections to keep any, in [0, 1); salient are those that the
    drop leaves, and as many positions as it takes of highest score for growth."""
    update_interval: Count | None = None
    """Gradient updates between events; an epoch if a classifier learns tasks and nothing is said."""
    first_update: CountOrZero | None = None
    """Gradient update after which the first event falls, counted from 1."""
    last_update: CountOrZero | None = None
    """No rewiring after this gradient update."""
    begin_fraction: Share | None = None
    """Share of the run's gradient updates at which rewiring begins; used where `first_update` is None."""
    end_fraction: Share | None = None
    """Share of the run's gradient updates at which rewiring ends; used where `last_update` is None."""
    shrink_at_end: bool | None = None
    """Whether one more event after the end drops without growing."""
    replaces_step: bool | None = None
    """Whether an event takes the place of an optimizer step, instead of following it."""
    keep_regrown: bool | None = None
    """Whether a connection dropped and grown in one event keeps its weight and moments."""
    initial_topology: (
        Literal[
            "random",
            "constant_fan_in",
            "of_four",
            "of_eight",
            "largest",
            "snip",
            "snip_ratios",
            "grasp",
            "grasp_ratios",
        ]
        | None
    ) = None
    """Connections that a sparse layer begins with: uniform over all sets of that size, as many into each output or of
    each four or eight of its inputs, or of a dense layer's initial weights the largest, or those that score best by a
    batch: by |weight gradient| (snip), or by what the gradient loses without them (grasp). Where one density is given,
    the best of all layers by snip and grasp, whatever the allocation; with ratios that decides numbers alone, and
    connections are random. Agents have no batch when their networks begin."""
    initial_value: Literal["dense_fan_in", "sparse_fan_in", "sparse_xavier", "normal", "wide_normal"] | None = None
    """Weights that a sparse layer begins with: as a dense one's, scaled by its connections, or normal, std .05 or .1
    (wide_normal)."""
    new_value: (
        Literal["zero", "tiny", "uniform", "xavier", "sparse_fan_in", "sparse_xavier", "normal", "wide_normal"] | None
    ) = None
    """Weight of a grown connection."""
    moments: Literal["zero", "mean", "fresh"] | None = None
    """Optimizer moments of a grown connection: 0, the mean of the others, or 0 with a count of steps of its own, by
    which Adam corrects their bias as at the beginning of training."""
    pairs: Count = 1
    """Neurons that share their inputs, each with weights of its own: 2 or 4 consecutive outputs of a sparse layer; 1:
    each neuron has its own inputs. Drop and grow act on a group, by the sum of its scores, and the number of
    connections of a layer is the nearest multiple."""
    target: Literal["shared", "union_trim"] | None = None
    """How target networks follow the topology."""
    recycle_interval: Count | None = None
    """Gradient updates between recyclings of dormant neurons (ReDo); never if None."""
    recycle_threshold: ShareBelowOne = 0.1
    """Score up to which a neuron is dormant, in units of its layer's mean activity, in [0, 1)."""
    recycle_by: Literal["dormant", "relevance"] = "dormant"
    """What is next to nothing for neurons that are recycled: their activity, or how much the loss would change without
    them (skeletonization), by the gradients of one more pass; in units of the layer's mean likewise."""

    def __post_init__(self) -> None:
        check_ranges(self, "topology.", hyphens=False)
        if self.method not in METHODS:
            raise ConfigError(unknown_name("topology method", self.method, METHODS))
        for name, (kind, table) in PARTS.items():
            value = getattr(self, name)
            if value is not None and value not in table:
                raise ConfigError(unknown_name(kind, str(value), table))
        if self.base.rule is None:
            unused = next((name for name in (*RULE_FIELDS, *OF_REWIRING) if getattr(self, name) is not None), None)
            if unused is not None:
                raise ConfigError(f"the topology method {self.method!r} never rewires and takes no {unused}")
        if self.recycle_by not in RECYCLE_BY:
            raise ConfigError(unknown_name("score of neurons", self.recycle_by, RECYCLE_BY))
        if self.recycle_by != "dormant" and self.recycle_interval is None:
            raise ConfigError(f"topology.recycle_by {self.recycle_by} recycles nothing: set topology.recycle_interval")
        self._check_densities()
        self._check_numbers()
        if check_pairs(self.pairs, "topology.pairs") > 1 and self.base.dense:
            raise ConfigError(f"the topology method {self.method!r} is dense and takes no pairs, got {self.pairs}")
        rule = self._rule(WIDEST)
        self._check_one_shot(rule)
        if rule is not None and rule.leaves_some_unused:
            self._check_unused(rule.backward_factor)
        if rule is not None and FAN_INS[rule.fan_in] is not None and self.part("initial_topology") != rule.fan_in:
            raise ConfigError(
                f"topology.fan_in {rule.fan_in} is kept, not made: set topology.initial_topology {rule.fan_in}"
            )
        if rule is not None and rule.salient_share and not self.output_layer_is_dense:
            raise ConfigError(
                f"topology.salient_share {rule.salient_share:g} would leave outputs of a network without "
                "connections: set topology.output_layer dense, or salient_share 0"
            )

    def _check_unused(self, backward_factor: float) -> None:
        said = f"topology.backward_factor {backward_factor:g} leaves connections unused: set topology."
        if self.pairs > 1:
            raise ConfigError(f"{said}pairs 1, not {self.pairs}")
        name = self.part("initial_topology")
        if name in ONE_SHOT and ONE_SHOT[name].together:
            raise ConfigError(f"{said}initial_topology largest, not {name}, which decides how many layers have")

    def _check_one_shot(self, rule: RewireRule | None) -> None:
        name = self.part("initial_topology")
        if name not in ONE_SHOT:
            return
        if self.part("initial_value") != "dense_fan_in":
            raise ConfigError(
                f"topology.initial_topology {name} keeps the weights that it judges: leave topology.initial_value out, "
                f"got {self.part('initial_value')}"
            )
        if rule is not None and rule.prunes and ONE_SHOT[name].together:
            raise ConfigError(
                f"topology.initial_topology {name} decides how many connections layers have, and so does a density "
                "schedule: set topology.density_schedule constant, or initial_topology largest"
            )

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

    def _check_densities(self) -> None:
        for name in ("density", *OWN_DENSITIES, "epsilon"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.density is not None:
            object.__setattr__(self, "epsilon", None)
        for name in ("density", *OWN_DENSITIES):
            given = getattr(self, name)
            if given is None:
                continue
            if self.base.dense and name in OWN_DENSITIES:
                raise ConfigError(f"the topology method {self.method!r} is dense and takes no {name}, got {given}")
            for density in given if isinstance(given, tuple) else (given,):
                allocation.check_density(density)

        one = [self.density if given is None else given for given in (getattr(self, name) for name in OWN_DENSITIES)]
        shared_out = [isinstance(given, int | float) or (given is None and self.epsilon is None) for given in one]
        if self.allocation != "erk" and not any(shared_out):
            raise ConfigError(
                f"topology.allocation {self.allocation} shares out one density among layers: leave it out beside "
                "epsilon, or a density for each layer"
            )
        if self.allocation in OF_OUTPUT_LAYER and self.output_layer_is_dense:
            raise ConfigError(
                f"topology.allocation {self.allocation} is about the output layer, which stays dense: set "
                "topology.output_layer sparse"
            )
        if (self.allocation == "erk_plus") != (self.output_density is not None):
            raise ConfigError("topology.allocation erk_plus and topology.output_density go together, give both or none")
        if self.initial_density is not None and self.part_of_rule("density_schedule") == "constant":
            raise ConfigError(
                f"topology.initial_density {self.initial_density:g} is where a density schedule begins: set "
                "topology.density_schedule"
            )

    def _check_numbers(self) -> None:
        begin, end = self.part("begin_fraction"), self.part("end_fraction")
        by_fractions = begin is not None and self.first_update is None and self.last_update is None
        if by_fractions and end < begin:
            raise ConfigError(f"topology.end_fraction must not come before begin_fraction {begin}, got {end}")

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

    def labels(self, algo: str) -> list[str]:
        """What is special about it for the agent `algo`, as parts of the name of a run."""
        labels = [] if self.method == algo else [self.method]
        if isinstance(self.density, float):
            labels.append(f"d{self.density:g}")
        return labels if self.pairs == 1 else [*labels, f"pairs{self.pairs}"]

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

    def for_run(self, total_updates: int) -> TopologyConfig:
        """The same with the updates at which rewiring begins and ends fixed for a run of `total_updates` of them.

        Raises:
            TopologyError: If pruning would end before it begins, or after the run.
        """
        if self.base.rule is None:
            return self
        of_run = window(total_updates, self.part("begin_fraction"), self.part("end_fraction"))
        open_ends: dict[str, Any] = {name: update for name, update in of_run.items() if getattr(self, name) is None}
        fixed = dataclasses.replace(self, **open_ends) if open_ends else self
        rule = fixed.rule()
        assert rule is not None
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
            return allocation.per_layer(shapes, self.density)
        if self.epsilon is None:
            of_output = () if self.output_density is None else (self.output_density,)
            density = DENSITY_OF_ALL if self.density is None else self.density
            allocation.check_can_be_met(density, shapes)
            return ALLOCATIONS[self.allocation](shapes, density, *of_output)
        densities = allocation.erdos_renyi(shapes, self.epsilon)
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


OWN_DENSITIES = (f"actor{DENSITY_SUFFIX}", f"critic{DENSITY_SUFFIX}")
"""Options for the density of one group of networks."""
_NO_OWN_DENSITY: dict[str, Any] = dict.fromkeys(OWN_DENSITIES)


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
