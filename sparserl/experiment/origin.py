"""The networks of another run with which a run begins, pruned first where its config says so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces

from sparserl.agents.networks.chains import Chains, chains_of_agent, check_reads_vectors_or_images, reads_images
from sparserl.agents.networks.sparse_cnn import layers_of_images
from sparserl.agents.parts import AgentParts
from sparserl.continual.rl.probe import likelihood_cotangents
from sparserl.continual.shared.importance import mean_gradient_power
from sparserl.errors import ConfigError
from sparserl.experiment.restored_agent import RestoredAgent
from sparserl.experiment.train_config import TrainConfig
from sparserl.experiment.visited import read_of, visited
from sparserl.layers.pruning import check_can_be_pruned, pruned, pruned_layers
from sparserl.recording.run_folder import RunFolder
from sparserl.topology.pruning import PRUNE
from sparserl.topology.structure import FloatArray

SEED = 10_000
"""Of the episodes in which importances are measured, away from the seeds of training."""
EPISODES = 2
"""Whose states importances are measured in: a policy that is saved has no replay buffer."""

EXTRACTOR = "features_extractor"
"""What makes features of images, within a network; its layers are pruned as a network of their own."""
States = dict[str, dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Origin:
    """What a run begins with.

    Attributes:
        spaces: Of observations and actions.
        networks: State of the networks of each group.
        wrappers: State of the wrappers that they learned behind.
        step: Env step at which they were saved.
    """

    spaces: tuple[spaces.Space[Any], spaces.Space[Any]]
    networks: States
    wrappers: dict[str, Any]
    step: int


def open_origin(config: TrainConfig) -> Origin | None:
    """What a run begins with, given its config; None if networks are drawn.

    Raises:
        ConfigError: If there is no such run.
        CheckpointError: If its checkpoint is missing or damaged.
        TopologyError: If it cannot be pruned so far.
    """
    if config.origin.run is None:
        return None
    torch.set_num_threads(config.threads)
    source = RestoredAgent(RunFolder.open(config.origin.run), config.origin.checkpoint)
    networks = {group: network.state_dict() for group, network in source.agent.networks.items()}
    if config.origin.prune_by is not None:
        networks = _pruned(source, config.topology.density, config.origin.prune_by)
    both = source.agent.observation_space, source.agent.action_space
    return Origin(both, networks, dict(source.state["wrappers"]), int(source.state["global_step"]))


def check_spaces(config: TrainConfig, origin: Origin, agent: AgentParts) -> None:
    """Raises ConfigError if the networks read other observations or give other actions than those of an agent."""
    for what, theirs, own in zip(
        ("observations", "actions"), origin.spaces, (agent.observation_space, agent.action_space), strict=True
    ):
        if theirs.shape != own.shape or type(theirs) is not type(own):
            raise ConfigError(f"{config.env} has {what} {own}, and the networks of {config.origin.run} know {theirs}")


def _pruned(source: RestoredAgent, density: Any, by: str) -> States:
    check_reads_vectors_or_images(source.agent, "pruned")
    seeing = {group: network for group, network in source.agent.networks.items() if reads_images(network)}
    if seeing and PRUNE[by].needs_importance:
        raise ConfigError(f"networks that read images are pruned by weights, not by {by}: use lamp, global or uniform")
    chains = {name: chain.used_alone() for name, chain in chains_of_agent(source.agent).items()}
    check_can_be_pruned({name: [*chain] for name, chain in chains.items()}, density)
    importances = _importances(source, chains) if PRUNE[by].needs_importance else dict.fromkeys(chains)
    # Beside its layers a network may have parameters of its own, such as the deviations of a Gaussian policy.
    states: States = {
        group: {name: own.detach() for name, own in network.named_parameters(recurse=False)}
        for group, network in source.agent.networks.items()
    }
    for name, chain in chains.items():
        group, _, own = name.partition(".")
        smaller = pruned(chain, density, by, importances[name], name=name)
        states[group].update(smaller.state_dict(prefix=f"{own}."))
    for group, network in seeing.items():
        if EXTRACTOR not in dict(network.named_children()):
            continue  # the other network's, which both read through
        layers = layers_of_images(network.get_submodule(EXTRACTOR))  # type: ignore[arg-type]  # as `reads_images` saw
        of_images = pruned_layers([*layers.values()], density, by, name=f"{group}.{EXTRACTOR}")
        for name, layer in zip(layers, of_images, strict=True):
            states[group].update(layer.state_dict(prefix=f"{EXTRACTOR}.{name}."))
    return states


def _importances(source: RestoredAgent, chains: Chains) -> dict[str, list[FloatArray]]:
    """(nnz,) of each layer of each network: the diagonal of its Fisher information, in states of a few episodes.

    Of the policy that of its distribution, with variance 1 where it has none or the network gives means or the values
    of choices alone; of a critic that of its value with variance 1. So the mean squared gradient, as `ewc` takes it.
    """
    agent: Any = source.agent
    samples = visited(
        lambda: source.config.make_env(follow=source.env),
        lambda rows, deterministic: agent.predict(rows, deterministic=deterministic)[0],
        episodes=EPISODES,
        seed=SEED,
        max_steps=source.config.eval.max_steps,
    )
    read = read_of(agent, samples)
    importances = {}
    for name, chain in chains.items():
        x = torch.from_numpy(read[name.partition(".")[0]])
        with torch.no_grad():
            outputs = chain(x)
        acts = name.partition(".")[0] == agent.trained[0] and isinstance(agent.action_space, spaces.Box)
        gaussian = acts and outputs.shape[1] == 2 * math.prod(agent.action_space.shape)
        powers = [mean_gradient_power(chain, x, one, 2) for one in likelihood_cotangents(outputs, gaussian)]
        importances[name] = [
            sum(power[f"{index}.{next(iter(dict(layer.named_parameters())))}"] for power in powers).flatten().numpy()  # type: ignore[union-attr]  # there is an output
            for index, layer in enumerate(chain)
        ]
    return importances
