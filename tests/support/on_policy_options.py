"""What every option of agents that learn from rollouts may be set to, and where it must arrive."""

from __future__ import annotations

from typing import Any

from support.option_kinds import Batch, Probe, Value, of_agent, of_group

SHARED: dict[str, Value] = {
    "agent.learning_rate": 0.5,
    "agent.weight_decay": 0.25,
    "agent.gamma": 0.5,
    "agent.net_arch": [6, 5],
    "agent.activation": "relu",
    "agent.gae_lambda": 0.75,
    "agent.ent_coef": 0.125,
    "agent.vf_coef": 2.0,
    "agent.max_grad_norm": 3.0,
}
OWN: dict[str, dict[str, Value]] = {
    "ppo": {
        "agent.n_steps": 40,
        "agent.batch_size": 10,
        "agent.n_epochs": 3,
        "agent.clip_range": 0.375,
        "agent.clip_range_vf": 0.625,
        "agent.normalize_advantage": False,
    },
    "recurrent_ppo": {
        "agent.n_steps": 40,
        "agent.batch_size": 10,
        "agent.n_epochs": 3,
        "agent.clip_range": 0.375,
        "agent.clip_range_vf": 0.625,
        "agent.normalize_advantage": False,
        "agent.lstm_hidden": 5,
        "agent.lstm_layers": 2,
    },
    "a2c": {"agent.n_steps": 7, "agent.normalize_advantage": True, "agent.optimizer": "rmsprop_tf"},
}


def _schedule(name: str) -> Probe:
    return lambda built: getattr(built.agent, name)(1.0)


PROBES: dict[str, Probe] = {
    "agent.learning_rate": of_group("lr"),
    "agent.weight_decay": of_group("weight_decay"),
    "agent.activation": lambda built: built.agent.policy.activation_fn.__name__.lower(),
    "agent.lstm_hidden": lambda built: built.agent.policy.lstm_actor.hidden_size,
    "agent.lstm_layers": lambda built: built.agent.policy.lstm_critic.num_layers,
    "agent.clip_range": _schedule("clip_range"),
    "agent.clip_range_vf": _schedule("clip_range_vf"),
    "agent.optimizer": lambda built: "rmsprop_tf" if "TF" in type(built.agent.policy.optimizer).__name__ else None,
    **{
        f"agent.{name}": of_agent(name)
        for name in (
            *("n_steps", "batch_size", "n_epochs", "gamma", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm"),
            "normalize_advantage",
        )
    },
}


def on_policy_batches(kind: str) -> list[Batch]:
    """Hyper-parameters of PPO or A2C."""
    sets: dict[str, Any] = {**SHARED, **OWN[kind.removeprefix("ds_")]}
    return [Batch(kind, "agent", sets, {}, {name: probe for name, probe in PROBES.items() if name in sets})]
