"""Published methods as named combinations of the module's parts; a method is a row here, not a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sparserl.topology.rewire import RewireRule


@dataclass(frozen=True)
class Method:
    """One choice for each part of the module.

    Attributes:
        summary: One line for `sparserl list methods`.
        rule: Drop, grow and schedule; None keeps the initial topology.
        end_fraction: Share of a run's gradient updates after which rewiring ends, where the length of the run is
            known; `rule.last_update` is the same for the run of the source.
        begin_fraction: Share at which it begins, and `rule.first_update` in the same way; None where that is fixed.
        target: Name in `sparserl.topology.target.TARGET`.
        dense: Whether every layer is dense, whatever the density asked for.
        output_layer_dense: Whether the last layer of a network stays dense.
        new_value: Name in `sparserl.topology.values.NEW_VALUE`.
        initial_topology: Name in `sparserl.topology.initial_topology.INITIAL` or `one_shot.ONE_SHOT`.
        initial_value: Name in `sparserl.topology.values.INITIAL_VALUE`.
        moments: Name in `sparserl.topology.moments.MOMENTS`.
        initial_density: Share of connections at the beginning of the rule's density schedule; None as that says.
    """

    summary: str
    rule: RewireRule | None
    end_fraction: float = 1.0
    begin_fraction: float | None = None
    target: str = "shared"
    dense: bool = False
    output_layer_dense: bool = True
    new_value: str = "zero"
    initial_topology: str = "random"
    initial_value: str = "dense_fan_in"
    moments: str = "zero"
    initial_density: float | None = None

    def needs_run_length(self, given: Mapping[str, Any]) -> tuple[str, ...]:
        """Those of `first_update` and `last_update` that only the length of a run decides; none where it is no matter.

        Pruning, a drop fraction that decays and a window that ends within the run depend on the length. A rule that
        goes on in the same way for as long as the run does leaves nothing open.

        Args:
            own: Fields of the rule that are given in place of the method's.

        Example:
            >>> METHODS["set"].needs_run_length({}), METHODS["gmp"].needs_run_length({"last_update": 900})
            ((), ('first_update',))
        """
        if self.rule is None:
            return ()
        rule = {**vars(self.rule), **given}
        goes_on = rule["decay"] == rule["density_schedule"] == "constant" and not rule["shrink_at_end"]
        ends = not (goes_on and self.rule.last_update is None and self.end_fraction == 1.0)
        by_length = {"first_update": self.begin_fraction is not None, "last_update": ends}
        return tuple(name for name, depends in by_length.items() if depends and name not in given)


def window(total_updates: int, begin_fraction: float | None, end_fraction: float) -> dict[str, int]:
    """`first_update` and `last_update` of a run of `total_updates` gradient updates.

    Args:
        total_updates: Length of the run, >= 0.
        begin_fraction: As in `Method`; with None there is no `first_update`.
        end_fraction: As in `Method`.

    Example:
        >>> window(975_000, 0.2, 0.8)
        {'first_update': 195000, 'last_update': 780000}
    """
    begin = {} if begin_fraction is None else {"first_update": max(1, round(begin_fraction * total_updates))}
    return {**begin, "last_update": max(0, round(end_fraction * total_updates))}


# Sokar et al. 2022, and its code for what the paper leaves open: first event at update 2, last full event by 925,000
# (of 975,000), then one that only drops; targets lag.
_SOKAR = RewireRule(
    "signed_magnitude",
    "random",
    drop_fraction=0.05,
    update_interval=1000,
    first_update=2,
    last_update=925_000,
    shrink_at_end=True,
)
_SOKAR_END = 925_000 / 975_000

# Pruned from 20 % to 80 % of a million updates.
_PRUNED = RewireRule(
    "weight_magnitude",
    drop_fraction=0.0,
    density_schedule="cubic",
    update_interval=1000,
    first_update=200_000,
    last_update=800_000,
)

_GRANET = RewireRule(
    "weight_magnitude",
    "gradient",
    drop_fraction=0.5,
    decay="cosine_floor",
    density_schedule="cubic",
    schedule_share=110 / 160,
    update_interval=1000,
    last_update=1_000_000,
    keep_regrown=True,
    budget="global_magnitude",
)


def _pruned(summary: str, **rule: Any) -> Method:
    """All layers pruned on the schedule of `gmp`, with `rule` in place of its parts."""
    own = replace(_PRUNED, **rule)
    return Method(summary, own, begin_fraction=0.2, end_fraction=0.8, output_layer_dense=False)


_MEST = RewireRule("magnitude_and_gradient", "random", update_interval=1000, last_update=1_000_000)

METHODS: dict[str, Method] = {
    # Every layer dense: the comparison that an agent's own code gives.
    "dense": Method("every layer dense", rule=None, dense=True),
    # Random topology, fixed (Static-TD3 in Sokar et al. 2022).
    "static": Method("random topology, fixed", rule=None),
    # Chosen once and fixed, of all layers together, by one training batch. Lee et al. 2019; Wang et al. 2020, whose
    # code judges other weights than the network begins with, by 25 samples of each class.
    "snip": Method(
        "the best of a dense network by |weight gradient| of a batch, fixed (Lee et al. 2019)",
        rule=None,
        output_layer_dense=False,
        initial_topology="snip",
    ),
    "grasp": Method(
        "the connections of a dense network that carry its gradient, by a batch, fixed (Wang et al. 2020)",
        rule=None,
        output_layer_dense=False,
        initial_topology="grasp",
    ),
    # Mocanu et al. 2018: per-sign magnitude, random growth, constant 0.3. The interval in updates is the one that
    # Graesser et al. 2022 sweep for SAC (the original rewires once an epoch, which RL does not have).
    "set": Method(
        "drop by magnitude per sign, grow at random (Mocanu et al. 2018)",
        RewireRule("signed_magnitude", "random", drop_fraction=0.3, update_interval=1000),
    ),
    # Evci et al. 2020 with the reinforcement-learning settings of Graesser et al. 2022: SAC 1000 updates, 0.5,
    # cosine to 0 at the last event, all layers sparse. "New" means absent before the event.
    "rigl": Method(
        "drop by magnitude, grow by gradient, cosine decay (Evci et al. 2020)",
        RewireRule(
            "weight_magnitude",
            "gradient",
            drop_fraction=0.5,
            decay="cosine",
            update_interval=1000,
            last_update=750_000,
            keep_regrown=True,
        ),
        end_fraction=0.75,
        output_layer_dense=False,
    ),
    # Lasby et al. 2024: RigL with as many inputs of each neuron, .3 annealed to 0 at three quarters. Neurons with few
    # salient connections keep none but their bias. The output layer, whose neurons all stay there, is dense.
    "srigl": Method(
        "RigL with a constant fan-in, neurons of few salient connections left out (Lasby et al. 2024)",
        RewireRule(
            "weight_magnitude",
            "gradient",
            drop_fraction=0.3,
            decay="cosine",
            update_interval=1000,
            last_update=750_000,
            keep_regrown=True,
            fan_in="constant",
            salient_share=0.3,
        ),
        end_fraction=0.75,
        initial_topology="constant_fan_in",
    ),
    # Liu et al. 2021 (in-time over-parameterisation): the settings of its code, in which a connection has long to train
    # before it may go. Magnitude whatever the sign; .5 annealed to .005 over the run; all layers.
    "set_itop": Method(
        "SET with rare, large events (Liu et al. 2021, in-time over-parameterisation)",
        RewireRule(
            "weight_magnitude",
            "random",
            drop_fraction=0.5,
            decay="cosine_floor",
            update_interval=1500,
            last_update=1_000_000,
        ),
        output_layer_dense=False,
    ),
    "rigl_itop": Method(
        "RigL with rare, large events (Liu et al. 2021, in-time over-parameterisation)",
        RewireRule(
            "weight_magnitude",
            "gradient",
            drop_fraction=0.5,
            decay="cosine_floor",
            update_interval=4000,
            last_update=1_000_000,
            keep_regrown=True,
        ),
        output_layer_dense=False,
    ),
    # Yuan et al. 2021 and its code at density .1: every 5 of 160 epochs, new weights 0; lambda is 0 there unless given.
    # EM&S trains a surplus that every event drops and draws anew; EM exchanges within the budget. There 32 events make
    # a run; here they are as often as those of the other methods.
    "mest": Method(
        "drop by magnitude and gradient, a fifth more on trial at first (Yuan et al. 2021, EM&S)",
        replace(_MEST, drop_fraction=0.0, density_schedule="surplus"),
        output_layer_dense=False,
    ),
    "mest_em": Method(
        "drop by magnitude and gradient, grow at random: 20 %, 10 %, 0 in stages (Yuan et al. 2021, EM)",
        replace(_MEST, drop_fraction=0.2, decay="staged"),
        output_layer_dense=False,
    ),
    "ds_td3": Method(
        "SET with 5 % per event, lagging targets, a final drop (Sokar et al. 2022)",
        _SOKAR,
        end_fraction=_SOKAR_END,
        target="union_trim",
    ),
    "ds_sac": Method(
        "SET with 10 % per event, lagging targets, a final drop (Sokar et al. 2022, appendix)",
        replace(_SOKAR, drop_fraction=0.1),
        end_fraction=_SOKAR_END,
        target="union_trim",
    ),
    # Graesser et al. 2022, appendix and code, for PPO on MuJoCo: 156,480 updates, the last event at 120,000, glorot
    # weights by the fan-in and fan-out that neurons have.
    "ds_ppo": Method(
        "SET with 30 % and cosine decay every 250 updates (Graesser et al. 2022, PPO)",
        RewireRule(
            "weight_magnitude",
            "random",
            drop_fraction=0.3,
            decay="cosine",
            update_interval=250,
            first_update=1,
            last_update=120_000,
        ),
        end_fraction=120_000 / 156_480,
        output_layer_dense=False,
        initial_value="sparse_xavier",
    ),
    # Grooten et al. 2023, and its code: magnitude whatever the sign, no end, a connection drawn again keeps its weight.
    # The paper's densities are those of one layer: (0.2, 1.0), the input layer sparse and the hidden one dense.
    "anf": Method(
        "drop by magnitude, grow at random, 5 % per event without end (Grooten et al. 2023)",
        RewireRule(
            "weight_magnitude", "random", drop_fraction=0.05, update_interval=1000, first_update=2, keep_regrown=True
        ),
        target="union_trim",
    ),
    # Dettmers and Zettlemoyer 2019: .5 annealed to .005. There the momentum of absent weights decides growth, and an
    # event is an epoch apart; here the mean gradient of as many batches as a momentum of .9 sees does, as nothing is
    # kept of absent weights, and no layer drops less because it is nearly full. Its first densities are uniform:
    # allocation `uniform`.
    "snfs": Method(
        "drop by magnitude, grow by gradient, layers share by momentum (Dettmers and Zettlemoyer 2019)",
        RewireRule(
            "weight_magnitude",
            "gradient",
            drop_fraction=0.5,
            decay="cosine_floor",
            update_interval=1000,
            last_update=1_000_000,
            keep_regrown=True,
            gradient_batches=10,
            budget="momentum",
        ),
        output_layer_dense=False,
    ),
    # Mostafa and Wang 2019 on MNIST: 600 of 5,324 connections an event, until epoch 190 of 200, output layer dense.
    # Events are 100 to 800 updates apart there, rarer as the run goes on.
    "dsr": Method(
        "drop below one threshold, grow at random in proportion to what is left (Mostafa and Wang 2019)",
        RewireRule(
            "below_threshold",
            "random_other",
            drop_fraction=600 / 5324,
            update_interval=800,
            last_update=950_000,
            budget="survivors",
            drop_threshold=1e-3,
        ),
        end_fraction=0.95,
    ),
    # Bellec et al. 2018: a weight that changes its sign is gone, another one begins next to 0 with a random sign; L1
    # and noise as in its code, in units of the learning rate (.5 there, with plain gradient descent). There an event
    # comes after each step (`update_interval` 1); here they are apart, as moments of connections that live for a step
    # would be wasted, and what has changed its sign counts until the next one.
    "deepr": Method(
        "drop where the sign has changed, grow at random with a tiny weight, L1 and noise (Bellec et al. 2018)",
        RewireRule("sign_change", "random", drop_fraction=0.3, update_interval=100, weight_l1=1e-5, weight_noise=1e-5),
        output_layer_dense=False,
        new_value="tiny",
    ),
    # Atashgahi et al. 2022, CTRE_sim of its code, which needs no validation accuracy; the phases of CTRE_seq are grow
    # `cosine` and `random`. There activations are those of an epoch, and an event follows each; here of ten batches, as
    # an agent has no epoch. A classifier's outputs are compared as softmax over all of them.
    "ctre": Method(
        "drop by magnitude, grow between neurons that fire alike, else at random (Atashgahi et al. 2022, CTRE_sim)",
        RewireRule(
            "weight_magnitude", "cosine_or_random", drop_fraction=0.2, update_interval=1000, gradient_batches=10
        ),
        output_layer_dense=False,
        new_value="uniform",
    ),
    # Zhang et al. 2025: a tenth, annealed to 0 along a cosine, weights from 0. There events are 100 steps apart and
    # drop by a draw too (by |weight| to a power that goes from 1 to 9), and the first connections are local ("BRF");
    # here the drop is by magnitude, as in their code without the soft rule, and the first connections are random.
    "chts": Method(
        "drop by magnitude, grow where paths of length three lead, by chance (Zhang et al. 2025, CHTs)",
        RewireRule(
            "weight_magnitude",
            "paths_soft",
            drop_fraction=0.1,
            decay="cosine",
            update_interval=1000,
            last_update=1_000_000,
            keep_regrown=True,
        ),
    ),
    # Jayakumar et al. 2020. Passes forward and to the input use the largest weights (`density` of them), gradients by
    # weights are of more, which decay faster. There those are the largest of all weights of a dense network; here they
    # are all that is stored, and as weights that nothing stores cannot be ranked, some of the weakest give way to
    # random ones, which begin at 0, at each event. How many, and how many are stored beside those in use, is ours; so
    # are 100 updates between events, which the source found to be enough. With `backward_factor` so high that layers
    # are full, it is the rule of the source.
    "top_kast": Method(
        "passes use the largest weights, as many more learn beside them (Jayakumar et al. 2020)",
        RewireRule(
            "weight_magnitude",
            "random",
            drop_fraction=0.1,
            update_interval=100,
            keep_regrown=True,
            weight_l2=1e-4,
            backward_factor=2.0,
        ),
        output_layer_dense=False,
    ),
    # Zhu and Gupta 2017 as in Graesser et al. 2022 for SAC, all layers.
    "gmp": _pruned("dense at first, pruned by magnitude on a cubic schedule (Zhu and Gupta 2017)"),
    # One number for all layers of a network, in which small layers keep what they need: by one threshold, or by LAMP's
    # scores. Their papers prune trained networks and train them again; here on the schedule of `gmp`.
    "global_magnitude": _pruned("gmp with one threshold for all layers of a network", budget="global_magnitude"),
    # Han et al. 2015: prune, train on with the weights that are left, prune again. An event ends a round; Frankle and
    # Carbin 2019 take the same share of what is left each time, and put weights back to early ones, which this does
    # not.
    "imp": _pruned(
        "rounds of pruning by one threshold and training on, the same share of what is left each (Han et al. 2015)",
        budget="global_magnitude",
        density_schedule="geometric",
    ),
    "lamp": _pruned("gmp with layers that share by LAMP's scores (Lee et al. 2021)", budget="lamp"),
    # LeCun et al. 1990: all weights of a trained network ranked together, some deleted, trained again. Here on the
    # schedule of `gmp`, by the Fisher information of ten batches in place of second derivatives.
    "obd": _pruned(
        "gmp by F w^2 / 2 over a whole network (Optimal Brain Damage, LeCun et al. 1990)",
        drop="fisher",
        budget="fisher",
        gradient_batches=10,
    ),
    # Liu et al. 2021, and its code: pruned by one threshold for all layers until epoch 110 of 160, then only exchanged;
    # .5 annealed to .005 over the whole run. It has both beginnings.
    "granet": Method(
        "dense at first, pruned by one threshold while it grows by gradient, exchange to the end (Liu et al. 2021)",
        _GRANET,
        output_layer_dense=False,
    ),
    "granet_sparse": Method(
        "GraNet from density .5 (Liu et al. 2021)",
        _GRANET,
        output_layer_dense=False,
        initial_density=0.5,
    ),
}
