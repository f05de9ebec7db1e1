"""Recurrent policies of sb3-contrib on truly sparse layers."""

from __future__ import annotations

from typing import Any

import torch
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy

from sparserl.agents.networks.networks import activation_name
from sparserl.agents.networks.on_policy import SparsePPOPolicy
from sparserl.errors import ConfigError
from sparserl.layers import SparseLSTM, SparseMLP

OPTIONS = {"shared_lstm": False, "enable_critic_lstm": True, "lstm_kwargs": None}
"""Options of sb3-contrib's policy that sparse ones know one value of."""


class SparseRecurrentPolicy(SparsePPOPolicy, RecurrentActorCriticPolicy):
    """sb3-contrib's `RecurrentActorCriticPolicy` with sparse LSTMs: one for the actor, one for the critic.

    A density is shared out among both matrices of each layer of the LSTM and the layers after it, and so are densities
    for each layer, in that order. The LSTM begins as torch's does.

    Args:
        args: As in Stable-Baselines3.
        lstm_hidden_size: Neurons of each layer of an LSTM.
        n_lstm_layers: Its layers.
        kwargs: As `SparsePPOPolicy`.

    Raises:
        ConfigError: If both are to share an LSTM, the critic is to have none, or arguments of `nn.LSTM` are given; and
            as `SparsePPOPolicy`.
        TopologyError: As `SparsePPOPolicy`.
    """

    def __init__(self, *args: Any, lstm_hidden_size: int = 256, n_lstm_layers: int = 1, **kwargs: Any):
        for name, usual in OPTIONS.items():
            if (given := kwargs.pop(name, usual)) != usual:
                raise ConfigError(f"sparse recurrent policies have {name} {usual}, got {given}")
        self._lstm_shape = lstm_hidden_size, n_lstm_layers
        self._shares: dict[str, tuple[list[float], list[float | None]]] = {}
        super().__init__(*args, lstm_hidden_size=1, **kwargs)  # whose dense LSTMs are none to speak of
        self.lstm_output_dim = lstm_hidden_size
        self.lstm_hidden_state_shape = (n_lstm_layers, 1, lstm_hidden_size)
        self.lstm_actor, self.lstm_critic = self._lstm("actor"), self._lstm("critic")
        lr: float = self.optimizer.param_groups[0]["lr"]
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr, **self.optimizer_kwargs)  # type: ignore[call-arg]  # as there

    def _check_topology(self, *net_archs: list[int]) -> None:
        super()._check_topology(*([1, *widths] for widths in net_archs))  # an LSTM is never an output layer

    @property
    def chain_width(self) -> int:
        return self._lstm_shape[0]

    def _chain(self, name: str, hidden: list[int], n_out: int) -> SparseMLP:
        activation = activation_name(self.activation_fn)
        group = name.partition(".")[0]
        topology, width = self.topology.of(group), self.chain_width
        sizes = [width, *hidden, n_out]
        of_lstm = list(SparseLSTM.shapes(self.features_dim, *self._lstm_shape).values())
        shapes = [*of_lstm, *zip(sizes[1:], sizes[:-1], strict=True)]
        densities, at_first = topology.densities(shapes), list(topology.densities_at_first(shapes))
        self._shares[group] = densities[: len(of_lstm)], at_first[: len(of_lstm)]
        return SparseMLP.random(
            sizes,
            densities[len(of_lstm) :],
            at_first[len(of_lstm) :],
            topology=topology,
            seed=self.topology_seed,
            name=name,
            activation=activation,
        )

    def _lstm(self, group: str) -> Any:
        return SparseLSTM.random(
            self.features_dim,
            *self._lstm_shape,
            *self._shares[group],
            topology=self.topology.of(group),
            seed=self.topology_seed,
            name=f"{group}.memory",
        )

    def evaluate_actions(self, obs: Any, actions: torch.Tensor, *memory: Any) -> Any:
        # Floats, as rollouts of Stable-Baselines3 give them: those of sb3-contrib keep whole numbers.
        return super().evaluate_actions(obs, actions.float(), *memory)

    @staticmethod
    def _process_sequence(features: Any, lstm_states: Any, episode_starts: Any, lstm: Any) -> Any:
        """Sequences that begin with an episode, and contain no other beginning, need no loop over their steps."""
        n_seq = lstm_states[0].shape[1]
        starts = episode_starts.reshape(n_seq, -1)
        if not starts[:, 1:].any():
            kept = (1.0 - starts[:, 0]).view(1, n_seq, 1)
            lstm_states, episode_starts = tuple(kept * state for state in lstm_states), torch.zeros_like(starts)
        return RecurrentActorCriticPolicy._process_sequence(features, lstm_states, episode_starts, lstm)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        hidden, layers = self._lstm_shape
        return {**super()._get_constructor_parameters(), "lstm_hidden_size": hidden, "n_lstm_layers": layers}
