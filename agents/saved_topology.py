"""Saving and loading of agents whose topology is part of what is saved."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file

from sparserl.errors import CheckpointError, ConfigError
from sparserl.topology.config import TopologyConfig

Given = TopologyConfig | Mapping[str, Any]
OPEN_ENDS = ("first_update", "last_update")
"""What the first `learn` fills in where the length of the run decides it."""


class SavedTopologyMixin(BaseAlgorithm):
    """Lets Stable-Baselines3's `load` and `set_parameters` say what of a topology they can do."""

    topology: Any
    evolver: Any

    @classmethod
    def load(
        cls,
        path: Any,
        env: Any = None,
        device: Any = "auto",
        custom_objects: dict[str, Any] | None = None,
        *args: Any,
        topology: Given | None = None,
        **kwargs: Any,
    ) -> Any:
        """As in Stable-Baselines3; the topology is part of what was saved.

        A file of the dense agent of Stable-Baselines3 gives an agent with its dense policy.

        Args:
            path: As in Stable-Baselines3.
            env: Likewise.
            device: Likewise.
            custom_objects: Likewise.
            args: Likewise.
            topology: May be given if it is the saved one.
            kwargs: As in Stable-Baselines3.

        Raises:
            ConfigError: If `topology` is another one, or `path` is a folder.
            CheckpointError: If the file holds no topology although its policy is sparse.
        """
        if isinstance(path, str | Path) and Path(path).is_dir():
            raise ConfigError(f"{path} is a folder; of a run take sparserl.experiment.open_run({str(path)!r}).agent")
        objects = dict(custom_objects or {})
        asked = objects.pop("topology", None) if topology is None else topology
        if kwargs.get("policy_kwargs") is not None:
            kwargs["policy_kwargs"] = _with_own_arguments(path, objects, kwargs["policy_kwargs"])
        agent: Any = super().load(path, env, device, objects, *args, **kwargs)
        if asked is not None:
            _check_same(dataclasses.asdict(TopologyConfig.coerce(asked)), dataclasses.asdict(agent.topology))
        return agent

    def set_parameters(self, load_path_or_dict: Any, exact_match: bool = True, device: Any = "auto") -> None:
        """As in Stable-Baselines3; sparse networks take over the connections as well.

        Raises:
            CheckpointError: If there are only parameters of dense networks, and those of this agent are sparse.
        """
        if isinstance(load_path_or_dict, dict):
            parameters = load_path_or_dict
        else:
            _, parameters, _ = load_from_zip_file(load_path_or_dict, device=device, load_data=False)
        if exact_match and "evolver" not in parameters:
            if self.evolver.layers:
                raise CheckpointError(
                    f"these are parameters of a dense agent, and {type(self).__name__} is sparse here: load them with "
                    "the class that saved them"
                )
            parameters = {**parameters, "evolver": self.evolver.state_dict()}
        super().set_parameters(parameters, exact_match, device)


def _with_own_arguments(path: Any, objects: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Policy arguments with those that the agent had added when it was saved, which users cannot give."""
    data, _, _ = load_from_zip_file(path, device="cpu", custom_objects=dict(objects))
    if hasattr(path, "seek"):
        path.seek(0)
    saved = (data or {}).get("policy_kwargs", {})
    return {**{name: saved[name] for name in ("topology", "topology_seed", "use_sde") if name in saved}, **given}


def _check_same(asked: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    for name, value in saved.items():
        if value != asked[name] and not (name in OPEN_ENDS and asked[name] is None):
            raise ConfigError(
                f"the agent was saved with topology.{name} {value!r}, which `load` cannot change to {asked[name]!r}; "
                "leave topology out"
            )
