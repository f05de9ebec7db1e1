"""Checkpoints of a run of an agent: all of the agent, its replay buffer if it has one, and what a recorder adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparserl.agents.agent_state import agent_state, restore_agent
from sparserl.agents.parts import AgentParts
from sparserl.agents.replay.log import ReplayLog
from sparserl.errors import CheckpointError
from sparserl.recording import checkpoint
from sparserl.recording.run_folder import (
    CHECKPOINTS_KEPT,
    RunFolder,
    full_checkpoints,
    remove_stale_checkpoints,
    step_name,
)
from sparserl.recording.state_structure import ANYTHING, Each, Named, check_structure


class AgentCheckpoints:
    """Writes and restores the checkpoints of one agent into its run folder.

    Args:
        agent: The agent.
        folder: Of the run.
    """

    def __init__(self, agent: AgentParts, folder: RunFolder):
        self._agent, self._folder = agent, folder
        self._replay = None if agent.replay_buffer is None else ReplayLog(folder.replay, agent.replay_buffer)
        self._parts: dict[str, list[dict[str, Any]]] = {}  # replay files of each checkpoint that is kept

    def save(self, more: Mapping[str, Any], *, emptied_at: int = 0, replaces: bool = False) -> None:
        """Writes a checkpoint of this moment, between a gradient update and the next env step, unless there is one.

        Args:
            more: What it holds beside the agent.
            emptied_at: Env step at which the replay buffer was last emptied, 0 if never.
            replaces: Whether one of the same env step is older: something is learned between two of them.
        """
        step = self._agent.num_timesteps
        path = self._folder.checkpoints / step_name(step)
        if path.exists() and not replaces:
            return
        replay = {} if self._replay is None else {"replay": self._append(self._replay, path.name, emptied_at)}
        checkpoint.save(path, {"global_step": step, **agent_state(self._agent), **replay, **more})
        remove_stale_checkpoints(self._folder)
        self._remove_except([part for parts in self._parts.values() for part in parts])

    def _append(self, log: ReplayLog, name: str, emptied_at: int) -> dict[str, Any]:
        """Writes new transitions; gives what the checkpoint of this name says of its replay buffer."""
        added = (self._agent.num_timesteps - emptied_at) // self._agent.n_envs
        others = [other for other in full_checkpoints(self._folder) if other.name != name]
        kept = others[1 - CHECKPOINTS_KEPT :]
        self._parts = {other.name: self._parts[other.name] for other in kept}
        self._parts[name] = log.append(added, emptied_at)
        return {"parts": self._parts, "added": added, "emptied_at": emptied_at, "buffer": log.buffer_state()}

    def _remove_except(self, parts: Sequence[dict[str, Any]]) -> None:
        if self._replay is not None:
            self._replay.remove_except(parts)

    def save_aside(self, path: Path, more: Mapping[str, Any]) -> None:
        """Writes this moment, without the replay buffer, where no run goes on from: to be looked at.

        Args:
            path: Folder to write.
            more: What it holds beside the agent.
        """
        checkpoint.save(path, {"global_step": self._agent.num_timesteps, **agent_state(self._agent), **more})

    def check(self, state: Mapping[str, Any], more: Mapping[str, Any]) -> None:
        """Raises CheckpointError unless a checkpoint is built as one of this agent; changes nothing.

        Args:
            state: The checkpoint.
            more: What is expected of it beside the agent, as `check_structure` takes it.
        """
        part = {"name": "", "start": 0, "stop": 0, "sha256": ""}
        replay: dict[str, Any] = {}
        if self._replay is not None:
            own = {"parts": Named(Each(part)), "added": 0, "emptied_at": 0, "buffer": self._replay.buffer_state()}
            replay = {"replay": own}
        expected = {
            "global_step": 0,
            **agent_state(self._agent),
            "episodes": Each({"r": 0.0, "l": 0, "t": 0.0}),
            "successes": Each(0.0),
            "last_obs": ANYTHING,
            "last_episode_starts": ANYTHING,
            **replay,
            **more,
        }
        check_structure(state, expected)
        if state["counters"]["num_timesteps"] != state["global_step"]:
            raise CheckpointError("the checkpoint's agent is at another step than the checkpoint")
        # What remains of a run whose last rollout goes beyond its end is below 0.
        if any(value < 0 for name, value in state["counters"].items() if name != "_current_progress_remaining"):
            raise CheckpointError("a counter of the checkpoint is negative")

    def restore(self, state: Mapping[str, Any]) -> None:
        """Puts the agent and its buffer where a checkpoint was taken, once `check` has passed.

        Raises:
            CheckpointError: If it does not fit, or a file that it names is missing or was edited.
        """
        if self._replay is not None:
            replay = state["replay"]
            self._parts = dict(replay["parts"])
            parts = self._parts[step_name(state["global_step"])]
            self._replay.restore(parts, replay["added"], replay["buffer"], emptied_at=replay["emptied_at"])
        restore_agent(self._agent, state)

    def forget_replay(self) -> None:
        """Deletes the replay buffer on disk: the run is done."""
        self._remove_except([])
