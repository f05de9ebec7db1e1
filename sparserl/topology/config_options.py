"""The options of a topology: plain data, each beside its description, and the tables that they name entries of."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from sparserl.ranges import AtLeastOne, Count, CountOrZero, NotNegative, Positive, PositiveShare, Share, ShareBelowOne
from sparserl.topology.budget import BUDGET, SCOPES
from sparserl.topology.criteria import DROP, GROW
from sparserl.topology.density import ALLOCATIONS
from sparserl.topology.fan_in import FAN_INS
from sparserl.topology.initial_topology import INITIAL
from sparserl.topology.moments import MOMENTS
from sparserl.topology.one_shot import ONE_SHOT
from sparserl.topology.rewire import RewireRule
from sparserl.topology.schedules import DECAY, DENSITY
from sparserl.topology.target import TARGET
from sparserl.topology.values import INITIAL_VALUE, NEW_VALUE

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
OWN_DENSITIES = (f"actor{DENSITY_SUFFIX}", f"critic{DENSITY_SUFFIX}")
"""Options for the density of one group of networks."""
RULE_FIELDS = tuple(field.name for field in dataclasses.fields(RewireRule))
OF_REWIRING = ("initial_density", "begin_fraction", "end_fraction", "new_value", "moments", "target")
"""What else has no effect where nothing is ever rewired."""


@dataclass(frozen=True)
class TopologyOptions:
    """What may be said of a topology; `TopologyConfig` says what it means.

    Every field but `method` that is None is taken from the method (`sparserl list methods`).
    """

    method: str = "ds_td3"
    """Named combination: dense, static, set, rigl, set_itop, rigl_itop, mest, mest_em, ds_td3, ds_sac, ds_ppo, anf,
    snfs, dsr, deepr, ctre, chts, top_kast, srigl, snip, grasp, gmp, imp, lamp, global_magnitude, obd, granet,
    granet_sparse.
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
        Literal[
            "zero", "tiny", "adam_step", "uniform", "xavier", "sparse_fan_in", "sparse_xavier", "normal", "wide_normal"
        ]
        | None
    ) = None
    """Weight of a grown connection; adam_step: 1e-3 of a random sign."""
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
