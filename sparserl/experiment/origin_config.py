"""Networks that have learned already, with which a run begins: what a config says of them and may say beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparserl import config as yaml_config
from sparserl.agents.table import AGENTS
from sparserl.errors import ConfigError, unknown_name
from sparserl.experiment.input_files import beside
from sparserl.recording.run_folder import USUAL_CHECKPOINT, RunFolder, WhichCheckpoint
from sparserl.topology.pruning import PRUNE

if TYPE_CHECKING:
    from sparserl.experiment.train_config import TrainConfig

OF_THE_BEGINNING = (
    *("density", "actor_density", "critic_density", "epsilon", "allocation", "output_density", "output_layer"),
    *("initial_density", "initial_topology", "initial_value", "pairs"),
)
"""Fields of a topology that say how networks begin, which here is known."""
OF_PRUNED: Mapping[str, Any] = {"method": "static", "allocation": "uniform", "output_layer": "sparse"}
"""Fields of the topology of pruned networks: every layer is sparse, and what is pruned stays so."""


FORMER_DEFAULTS: Mapping[str, tuple[Any, ...]] = {"checkpoint": ("best",)}
"""Field of `OriginConfig` -> what stands in configs of runs without an origin that older versions wrote."""


@dataclass(frozen=True)
class OriginConfig:
    """Where networks come from that have learned, instead of being drawn.

    Raises:
        ConfigError: If a name is unknown, or an option has no effect.
    """

    run: Path | None = None
    """Run folder of `sparserl train` whose networks the run begins with, in place of drawn ones; so does --from. Its
    config lies beneath, in place of a preset. Optimizer, replay buffer and temperature begin anew."""
    checkpoint: WhichCheckpoint = USUAL_CHECKPOINT
    """Which of its policies: the last, or the best by evaluation."""
    prune_by: str | None = None
    """Prune each network to topology.density first, by uniform, global, lamp or fisher (see `sparserl prune --help`);
    the algorithm is then the sparse one of its kind. None prunes nothing."""

    def __post_init__(self) -> None:
        if self.prune_by is not None and self.prune_by not in PRUNE:
            raise ConfigError(unknown_name("pruning rule", self.prune_by, PRUNE))
        for field in fields(self):
            value = getattr(self, field.name)
            unused = (field.default, *FORMER_DEFAULTS.get(field.name, ()))
            if self.run is None and value not in unused:
                raise ConfigError(f"origin.{field.name} {value} has no effect: it needs origin.run, or --from DIR")

    @property
    def labels(self) -> list[str]:
        """What is special about it, as parts of the name of a run."""
        if self.run is None:
            return []
        return ["begun" if self.prune_by is None else f"pruned_{self.prune_by}"]

    def absolute(self) -> OriginConfig:
        """The same wherever the process runs."""
        return self if self.run is None else replace(self, run=self.run.absolute())


def origin_in(data: Mapping[str, Any]) -> OriginConfig:
    """What plain data of a config says of it."""
    given = data.get("origin")
    return yaml_config.build(OriginConfig, given, "origin.") if isinstance(given, Mapping) else OriginConfig()


def config_beneath(origin: OriginConfig) -> dict[str, Any]:
    """What lies beneath the config of a run that begins with networks of another: the config of that one.

    Args:
        origin: With a run.

    Raises:
        ConfigError: If that is no run of `sparserl train`.
    """
    assert origin.run is not None
    file = RunFolder.open(origin.run).path / "config.yaml"
    data = beside(yaml_config.load_yaml(file), file)
    algo = data.get("algo")
    if "env" not in data or algo not in AGENTS:
        raise ConfigError(f"{origin.run} is no run of `sparserl train`, whose networks another could begin with")
    if origin.prune_by is not None:
        data |= {"algo": AGENTS[algo].sparse_twin or algo, "topology": dict(OF_PRUNED)}
    return {**data, "origin": yaml_config.plain(origin)}


def check_origin(run: TrainConfig, source: TrainConfig) -> None:
    """Refuses a config that does not go with the networks that it begins with.

    Args:
        run: With an origin.
        source: Config of that.

    Raises:
        ConfigError: If they are of another algorithm or other widths, or the connections would be others.
    """
    where, twin = run.origin.run, AGENTS[source.algo].sparse_twin
    if run.algo not in (source.algo, twin):
        raise ConfigError(f"{run.algo} cannot begin with the networks of {where}: they are of {source.algo}")
    for name in run.agent.of_networks:
        given, theirs = (yaml_config.plain(getattr(one.agent, name)) for one in (run, source))
        if given != theirs:
            raise ConfigError(f"agent.{name} {given} does not fit the networks of {where}: leave it {theirs}")
    if run.origin.prune_by is None:
        if run.algo != source.algo:
            raise ConfigError(
                f"{run.algo} begins with sparse networks, and {where} has dense ones of {source.algo}: prune them, by "
                "--origin.prune-by lamp --topology.density 0.1"
            )
        theirs_of = source.topology.resolved()
    else:
        if not isinstance(run.topology.density, float):
            raise ConfigError(
                f"origin.prune_by {run.origin.prune_by} needs one topology.density in (0, 1) for all networks, got "
                f"{run.topology.density}"
            )
        theirs_of = replace(type(run.topology)(**OF_PRUNED), density=run.topology.density).resolved()
    _check_connections(run, theirs_of)


def _check_connections(run: TrainConfig, theirs: Any) -> None:
    """Raises ConfigError unless the topology begins with the connections that are there."""
    own, where = run.topology.resolved(), run.origin.run
    if own.base.dense != theirs.base.dense:
        is_what, nearest = ("dense", "dense") if theirs.base.dense else ("sparse", "static")
        raise ConfigError(
            f"topology method {own.method!r} does not fit the networks of {where}, which are {is_what}: use {nearest}"
        )
    for name in OF_THE_BEGINNING:
        given, known = getattr(own, name), getattr(theirs, name)
        if given != known:
            option = f"--topology.{name.replace('_', '-')}"
            raise ConfigError(f"{option} {given} does not fit the networks of {where}: {_advice(option, known)}")
    rule = own.rule()
    if rule is not None and rule.prunes:
        raise ConfigError(
            f"topology method {own.method!r} begins with more connections than it ends with, and those of {where} are "
            "what they are: use --topology.method set, static or another that keeps their number"
        )


def _advice(option: str, known: Any) -> str:
    if known is None:
        return "leave it out"
    words = " ".join(map(str, known)) if isinstance(known, tuple) else known
    return f"theirs is {option} {words}"
