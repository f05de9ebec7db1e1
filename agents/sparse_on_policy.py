"""What every sparse on-policy agent shares: topology events around the steps that Stable-Baselines3's `train` takes."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer

from sparserl.agents.on_policy_parts import OnPolicyParts, Step
from sparserl.agents.probe import SAMPLES, Probe
from sparserl.agents.run_length import updates_of_steps
from sparserl.agents.sparse_agent import SparseAgentMixin
from sparserl.errors import ConfigError
from sparserl.layers.recycle import Recycler
from sparserl.seeding import stream


class SparseOnPolicyMixin(SparseAgentMixin, OnPolicyParts):
    """As `SparseAgentMixin`, for an agent that learns from rollouts: its losses and `train` are Stable-Baselines3's.

    One optimizer step moves actor and critic, so both groups have their events after the same step; where an event
    takes the place of a step, that group alone does not move. Stable-Baselines3 clips the gradients of both together.

    Raises:
        ConfigError: If neurons are to be recycled by gradients.
    """

    unknown_length = "`target_kl`: leave it out"
    described_by = ("latest_steps",)
    parts_of_rollout: ClassVar[tuple[str, ...]] = (
        "observations",
        "actions",
        "values",
        "log_probs",
        "advantages",
        "returns",
    )
    """Arrays of a rollout that the losses are made of."""
    latest_steps: torch.Tensor

    def _setup_model(self) -> None:
        super()._setup_model()
        steps = self.n_steps * self.n_envs
        width = sum(getattr(self.rollout_buffer, name).size // steps for name in self.parts_of_rollout)
        self.latest_steps = torch.zeros(0, width if self.meets_vectors else 0)

    def _make_recycler(self) -> Recycler | None:
        recycler = super()._make_recycler()
        if recycler is not None and recycler.score.needs_gradients:
            raise ConfigError(
                f"topology.recycle_by {self.topology.recycle_by} needs losses that can be formed again, which an agent "
                "without a replay buffer has not: use dormant"
            )
        return recycler

    def _updates_of_learn(self, total_timesteps: int, reset_num_timesteps: bool) -> int | None:
        start = 0 if reset_num_timesteps else self.num_timesteps
        updates = self.updates_per_rollout
        if updates is None:
            return None
        steps = self.n_steps * self.n_envs
        return updates_of_steps(start, start + total_timesteps, 0, steps_per_rollout=steps, updates_per_rollout=updates)

    def train(self) -> None:
        if self.updates == 0:  # what the first update could do with, the later ones can
            self._check_run_length("is not known before `learn`: call `bind_run_length`")
        self.evolver.begin_update(self.updates + 1)
        super().train()
        if self.meets_vectors:  # collecting begins with a rollout that is empty, before anyone looks
            rows = self._sampled_rows(stream(self.policy_kwargs.get("topology_seed", 0), "dormant", str(self.updates)))
            arrays = (getattr(self.rollout_buffer, name)[rows] for name in self.parts_of_rollout)
            parts = [array.reshape(len(rows), -1).astype(np.float32) for array in arrays]
            self.latest_steps = torch.from_numpy(np.concatenate(parts, axis=1))

    def _sampled_rows(self, rng: np.random.Generator) -> np.ndarray:
        """(B,) some env steps of a rollout that has been learned from, environment by environment there."""
        steps = self.n_steps * self.n_envs
        return rng.permutation(steps)[:SAMPLES]

    def _latest_rollout(self) -> RolloutBuffer:
        """A full rollout of one environment, of the env steps that are kept of the latest."""
        rollout = copy.copy(self.rollout_buffer)
        self._resize(rollout, len(self.latest_steps))
        rollout.reset()
        rollout.full = True
        arrays = [getattr(rollout, name) for name in self.parts_of_rollout]
        widths = [array.size // rollout.buffer_size for array in arrays]
        for array, part in zip(arrays, torch.split(self.latest_steps, widths, dim=1), strict=True):
            array[:] = part.numpy().reshape(array.shape)
        return rollout

    def _resize(self, rollout: Any, steps: int) -> None:
        """Makes a rollout one of so many steps of one environment, as soon as it is reset."""
        rollout.buffer_size, rollout.n_envs = steps, 1

    def probe(self) -> Probe | None:
        if len(self.latest_steps) < 2:  # of a single advantage there is no deviation
            return None
        rollout = self._latest_rollout()
        return Probe(self._read(rollout), partial(self._form_gradients, rollout), self.reads_vectors)

    def _step(self, step: Step) -> None:
        if self.around_step is not None:
            for group in self.trained:
                self.around_step.before_step(group)
        for group, network in self.networks.items():
            if self.evolver.replaces_step(group):
                for parameter in network.parameters():
                    parameter.grad = None  # so the optimizer leaves it as it is
        super()._step(step)
        for group in self.trained:
            self.evolver.after_step(group)
            if self.around_step is not None:
                self.around_step.after_step(group)
        for group in self.trained:
            self._end_update(group)
        if self.recycler is not None:
            self.recycler.recycle_if_due(self.updates, self._read(self.rollout_buffer))
        self.evolver.begin_update(self.updates + 1)

    def _read(self, rollout: RolloutBuffer) -> dict[str, torch.Tensor]:
        """(N, width) what the layers of actor and critic read of the env steps of a rollout."""
        width = self.observation_space.shape[0]  # type: ignore[index]  # vectors
        observations = torch.from_numpy(rollout.observations).to(torch.float32).reshape(-1, width)
        return dict.fromkeys(self.trained, observations)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "latest_steps"]
