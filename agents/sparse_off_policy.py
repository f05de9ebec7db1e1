"""What every sparse off-policy agent shares beside `sparse_agent`: update loop and targets.

An agent that mixes this in writes only its losses and the order of its update.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.utils import get_parameters_by_name

from sparserl.agents.collection import CollectionMixin
from sparserl.agents.probe import Places, Probe, places_in
from sparserl.agents.replay.batch import FloatArray, TransitionBatch, sample, transitions_at
from sparserl.agents.run_length import updates_of_learn
from sparserl.agents.sparse_agent import SparseAgentMixin
from sparserl.kernels.deferred import computed
from sparserl.kernels.flops import counting
from sparserl.kernels.program import at_once, deferred, run_waiting
from sparserl.kernels.recording import Repeated, not_again, only_if, relies_on, relies_on_items
from sparserl.layers.fused_adam import FusedAdam
from sparserl.layers.gradient_norm import GradientNorm
from sparserl.layers.recycle import Recycler
from sparserl.topology.target import TargetNetwork

Number = Any
"""A float, or an array of one number."""
Loss = tuple[Number, FloatArray]
"""Value of a loss, and its derivative."""
UPDATE = (
    "_update",
    "_targets",
    "_update_critics",
    "_form_critic_gradients",
    "_form_actor_gradients",
    "_form_gradients",
    "_step",
    "_step_optimizer",
    "_sync_targets",
    "_update_temperature",
)
"""Methods that an update is made of; where all that an agent has are ours, their steps wait and run in one call."""
WAITS_TO = 1 << 18
"""Trained weights and biases up to which steps wait: beyond, calls cost little, and passes lend each other memory."""


COUNTERS = frozenset(
    {
        "_last_obs",
        "_last_original_obs",
        "_last_episode_starts",
        "_num_timesteps_at_start",
        "start_time",
        "run_updates",
    }
)
"""Attributes of an agent that no update depends on, beside its `counters`, but for turns (`_is_turn`)."""


def _is_ours(method: Any) -> bool:
    """Whether a method is of an agent of this package, not of a subclass or put in its place."""
    return str(getattr(method, "__module__", "")).startswith("sparserl.agents.")


class SparseTopologyMixin(SparseAgentMixin, CollectionMixin):
    """As `SparseAgentMixin`, for an off-policy agent that writes its losses and the order of its update.

    Attributes:
        max_grad_norm: Norm to which the gradients of a step are scaled down; None leaves them as they are.
    """

    max_grad_norm: Any = None
    unknown_length = "`train_freq` in episodes: set `gradient_steps=-1`"

    def _follow_topology(self) -> None:
        super()._follow_topology()
        self._gradient_norms = {name: GradientNorm(net.parameters()) for name, net in self.networks.items()}
        self._repeated: Repeated[tuple[TransitionBatch, dict[str, Number]]] = Repeated(
            besides=COUNTERS.union(self.counters)
        )
        self.target_networks = {
            name: TargetNetwork(self.networks[name], target, self.topology.part("target"))
            for name, target in self.target_copies.items()
        }
        self._running_statistics = {
            name: list(
                zip(
                    *(get_parameters_by_name(net, ["running_"]) for net in (self.networks[name], target)),
                    strict=True,
                )
            )
            for name, target in self.target_copies.items()
        }
        for name, target in self.target_networks.items():
            for layer_name, target_layer in target.layers.items():
                self.evolver.follow(f"{name}.{layer_name}", target_layer.follow)

    def _updates_of_learn(self, total_timesteps: int, reset_num_timesteps: bool) -> int | None:
        return updates_of_learn(self, total_timesteps, reset_num_timesteps)

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Runs gradient updates; called by `learn`."""
        if self._n_updates == 0:  # what the first update could do with, the later ones can
            self._check_run_length("is not known before `learn`: call `bind_run_length`")
        self.policy.set_training_mode(True)
        self._update_learning_rate(self._optimizers())
        logged: dict[str, list[float]] = {}
        for _ in range(gradient_steps):
            self._n_updates += 1
            self.evolver.begin_update(self._n_updates)
            if any(map(self.evolver.is_due, self.trained)):
                self._repeated.forget()
                batch, numbers = self._sample_and_update(batch_size)
            else:
                update = partial(self._sample_and_update, batch_size)
                batch, numbers = self._repeated(update, vars(self), batch_size, *self._class_settings())
            for name, value in numbers.items():
                logged.setdefault(name, []).append(np.asarray(value).item())
            if self.recycler is not None and self.recycler.is_due(self._n_updates):
                self._recycle(self.recycler, batch)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for name, values in logged.items():
            self.logger.record(f"train/{name}", sum(values) / len(values))

    def _sample_and_update(self, batch_size: int) -> tuple[TransitionBatch, dict[str, Number]]:
        assert self.replay_buffer is not None
        with counting(self.flops), deferred() if self._waits() else at_once():
            batch = sample(self.replay_buffer, batch_size, self._vec_normalize_env, self.gamma)
            return batch, self._update(batch)

    def _is_turn(self, period: int) -> bool:
        """Whether this update is one of every `period`-th; all that `_update` may ask of the count of updates."""
        is_turn = self._n_updates % period == 0
        only_if(lambda: (self._n_updates % period == 0) == is_turn)
        return is_turn

    def _waits(self) -> bool:
        """Whether steps of an update may wait for each other: a subclass that overrides a method expects numbers."""
        groups = chain.from_iterable(optimizer.param_groups for optimizer in self._optimizers())
        weights = sum(values.numel() for group in groups for values in group["params"])
        return weights <= WAITS_TO and all(_is_ours(getattr(self, name)) for name in UPDATE if hasattr(self, name))

    def _loss(self, name: str, *given: Any) -> Any:
        """Calls the method of a loss; one of a subclass gets NumPy arrays."""
        method = getattr(self, name)
        return method(*(given if _is_ours(method) else map(computed, given)))

    def _update(self, batch: TransitionBatch) -> dict[str, Number]:
        """One gradient update on a batch.

        Returns:
            What is logged under `train/`: losses by name; a loss that is not computed this time is left out.
        """
        raise NotImplementedError

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Those that follow the learning-rate schedule."""
        return [self.optimizer_of(name) for name in self.trained]

    def _class_settings(self) -> tuple[object, ...]:
        """What an update reads of the class, which may be patched."""
        return ()

    def transitions(self, rows: np.ndarray) -> TransitionBatch:
        """Copies of transitions of the replay buffer, of one environment and one step each, for `form_gradients`.

        Args:
            rows: (B,) where they lie in it.
        """
        assert self.replay_buffer is not None
        return transitions_at(self.replay_buffer, rows, self.gamma)

    def form_gradients(self, group: str, batch: TransitionBatch) -> None:
        """Forms the gradients of a trained network on a batch, in place of those that it has, and takes no step.

        Args:
            group: Name in `trained`.
            batch: Transitions; actions and targets may be drawn from torch's global generator.
        """
        raise NotImplementedError

    def probe(self) -> Probe | None:
        """As in `AgentParts`; no gradients where observations are normalised, or several environments are stepped."""
        places = places_in(self.replay_buffer, self.policy_kwargs.get("topology_seed", 0), self._n_updates)
        if places is None or not self.reads_vectors:
            return None
        return self._probe_of_replay(places, self._form_all_gradients)

    def _form_all_gradients(self, rows: Places) -> None:
        batch = self.transitions(rows)
        for group in self.trained:
            self.form_gradients(group, batch)

    def _recycle(self, recycler: Recycler, batch: TransitionBatch) -> None:
        if recycler.score.needs_gradients:
            with counting(self.flops), at_once():
                for group in self.trained:
                    self.form_gradients(group, batch)
        inputs = self.read_by(batch.observations, batch.actions)
        recycler.recycle_if_due(self._n_updates, {name: torch.from_numpy(array) for name, array in inputs.items()})

    def _step(self, group: str) -> None:
        """One optimizer step of a group, then its topology event if one is due, or that event alone."""
        if not self.evolver.replaces_step(group):
            self._step_optimizer(group)
        self._end_update(group)

    def _step_optimizer(self, group: str) -> None:
        optimizer = self.optimizer_of(group)
        relies_on(("optimizer", group), lambda: self.optimizer_of(group) is optimizer)
        if self.around_step is not None:
            with at_once():
                self.around_step.before_step(group)
        if not isinstance(optimizer, FusedAdam):  # which waits as other steps do
            not_again()
            run_waiting()
        if self.max_grad_norm is not None:
            self._clip_gradients(group, self.max_grad_norm)
        optimizer.step()
        self.evolver.after_step(group)
        if self.around_step is not None:
            with at_once():
                self.around_step.after_step(group)

    def _clip_gradients(self, group: str, most: float) -> None:
        if isinstance(self.optimizer_of(group), FusedAdam):
            self._gradient_norms[group].clip(most)
        else:  # bit for bit as in Stable-Baselines3
            torch.nn.utils.clip_grad_norm_(getattr(self, group).parameters(), most)

    def _sync_targets(self, tau: float) -> None:
        relies_on_items(self.target_networks, self.target_networks)
        for name, target in self.target_networks.items():
            target.sync(tau)
            for online, copy in self._running_statistics[name]:
                not_again()
                copy.copy_(online)

    def _excluded_save_params(self) -> list[str]:
        made = ["target_networks", "_running_statistics", "_repeated", "_gradient_norms", "explorer"]
        return [*super()._excluded_save_params(), *made]
