"""What `bench update` compares, and with what: names, baselines, actions. Nothing here takes seconds to import."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

ANY = ("continuous", "discrete")


@dataclass(frozen=True)
class Compared:
    """A contender of `bench update`.

    Attributes:
        summary: What it is.
        baseline: The contender that its ratios are to; a baseline may have one of its own.
        sparse: Whether it is ours and measured at each density.
        actions: Kinds that it takes.
        usual: Whether it is measured where no names are given.
    """

    summary: str
    baseline: str
    sparse: bool = False
    actions: tuple[str, ...] = ("continuous",)
    usual: bool = False


COMPARED = {
    "ds_td3": Compared("ours, at each density", "td3", sparse=True, usual=True),
    "ds_sac": Compared("ours, at each density; its ratios are to sac", "sac", sparse=True, usual=True),
    "td3": Compared("Stable-Baselines3's TD3, the baseline of all other ratios", "td3", usual=True),
    "td3_fused": Compared("the same with torch's fused Adam, which ours uses", "td3", usual=True),
    "sac": Compared("Stable-Baselines3's SAC", "td3", usual=True),
    "ds_redq": Compared("ds_sac with 10 critics, the mean for the actor, 2 for the targets", "sac", sparse=True),
    "sac_10": Compared("Stable-Baselines3's SAC with 10 critics; its ratios are to sac", "sac"),
    "ds_tqc": Compared("ours, at each density; its ratios are to tqc", "tqc", sparse=True),
    "tqc": Compared("sb3-contrib's TQC with 2 critics", "tqc"),
    "ds_crossq": Compared("ours, at each density; its ratios are to crossq, actors are 2 x 256", "crossq", sparse=True),
    "crossq": Compared("sb3-contrib's CrossQ; its ratios are to sac_256, actors are 2 x 256", "sac_256"),
    "ds_simba": Compared(
        "ds_sac with SimBa's networks, at each density; its ratios are to simba, actors are 1 x 128",
        "simba",
        sparse=True,
    ),
    "simba": Compared("the same with dense networks; its ratios are to sac_256", "sac_256"),
    "sac_256": Compared("Stable-Baselines3's SAC of 2 x 256 at every width", "sac_256"),
    "ds_dqn": Compared(
        "ours, at each density, with discrete actions; its ratios are to dqn",
        "dqn",
        sparse=True,
        actions=("discrete",),
    ),
    "dqn": Compared("Stable-Baselines3's DQN", "dqn", actions=("discrete",)),
    "ds_ppo": Compared("ours, at each density; its ratios are to ppo", "ppo", sparse=True, actions=ANY),
    "ppo": Compared("Stable-Baselines3's PPO", "ppo", actions=ANY),
    "ds_a2c": Compared("ours, at each density; its ratios are to a2c", "a2c", sparse=True, actions=ANY),
    "a2c": Compared("Stable-Baselines3's A2C", "a2c", actions=ANY),
    "ds_recurrent_ppo": Compared(
        "ours, at each density; its ratios are to recurrent_ppo", "recurrent_ppo", sparse=True, actions=ANY
    ),
    "recurrent_ppo": Compared("sb3-contrib's PPO with an LSTM before the layers", "recurrent_ppo", actions=ANY),
    "masked": Compared("td3_fused with masks that imitate sparsity", "td3", usual=True),
    "sbx_td3": Compared("SBX's TD3, compiled by JAX", "td3", usual=True),
    "sbx_crossq": Compared("SBX's CrossQ, likewise; its ratios are to sac_256, actors are 2 x 256", "sac_256"),
    "sbx_simba": Compared(
        "SBX's SAC with SimBa's networks, likewise; its ratios are to sac_256, actors are 1 x 128", "sac_256"
    ),
}
"""Contenders of `bench update`, in the order of its tables."""
OURS = frozenset(name for name, compared in COMPARED.items() if compared.sparse)
"""Those that have a density."""


def with_baselines(names: Iterable[str]) -> list[str]:
    """Contenders and what their ratios, and those of their baselines, are to; each once, those that are given first.

    Example:
        >>> with_baselines(["ds_sac"])
        ['ds_sac', 'sac', 'td3']
    """
    together = list(dict.fromkeys(names))
    for name in together:  # which grows
        baseline = COMPARED[name].baseline
        if baseline not in together:
            together.append(baseline)
    return together


def needs(name: str) -> tuple[str, str] | None:
    """(module, extra that brings it) that a contender of any benchmark needs and that may be missing; None if none."""
    if name.startswith("sbx_"):
        return "sbx", "bench"
    return ("sb3_contrib", "contrib") if name in ("tqc", "crossq", "recurrent_ppo", "ds_recurrent_ppo") else None
