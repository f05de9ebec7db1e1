"""Published methods as named combinations of the module's parts; a method is a row here, not a class."""

from __future__ import annotations

from dataclasses import dataclass

from sparserl.topology.rewire import RewireRule


@dataclass(frozen=True)
class Method:
    """One choice for each part of the module.

    Attributes:
        summary: One line for `sparserl list methods`.
        rule: Drop, grow and schedule; None keeps the initial topology.
        end_fraction: Share of a run's gradient updates after which rewiring ends, where the length of the run is
            known; `rule.last_update` is the same for the run of the source.
        target: Name in `sparserl.topology.target.TARGET`.
        dense: Whether every layer is dense, whatever the density asked for.
        output_layer_dense: Whether the last layer of a network stays dense.
        new_value: Name in `sparserl.topology.evolver.NEW_VALUE`.
        moments: Name in `sparserl.topology.evolver.MOMENTS`.
    """

    summary: str
    rule: RewireRule | None
    end_fraction: float = 1.0
    target: str = "shared"
    dense: bool = False
    output_layer_dense: bool = True
    new_value: str = "zero"
    moments: str = "zero"


METHODS: dict[str, Method] = {
    # Every layer dense: the comparison that an agent's own code gives.
    "dense": Method("every layer dense", rule=None, dense=True),
    # Random topology, fixed (Static-TD3 in Sokar et al. 2022).
    "static": Method("random topology, fixed", rule=None),
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
    # Sokar et al. 2022, and its code for what the paper leaves open: first event at update 2, last full event by
    # 925,000 (of 975,000), then one that only drops; targets lag.
    "ds_td3": Method(
        "SET with 5 % per event, lagging targets, a final drop (Sokar et al. 2022)",
        RewireRule(
            "signed_magnitude",
            "random",
            drop_fraction=0.05,
            update_interval=1000,
            first_update=2,
            last_update=925_000,
            shrink_at_end=True,
        ),
        end_fraction=925_000 / 975_000,
        target="union_trim",
    ),
    # Sokar et al. 2022, appendix: 0.1 of SAC's connections; the rest as the authors' DS-TD3 code has it.
    "ds_sac": Method(
        "SET with 10 % per event, lagging targets, a final drop (Sokar et al. 2022, appendix)",
        RewireRule(
            "signed_magnitude",
            "random",
            drop_fraction=0.1,
            update_interval=1000,
            first_update=2,
            last_update=925_000,
            shrink_at_end=True,
        ),
        end_fraction=925_000 / 975_000,
        target="union_trim",
    ),
}
