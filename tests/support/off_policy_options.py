"""What agents that learn from a replay buffer may be told, and where it must arrive."""

from __future__ import annotations

from typing import Any

from support.option_kinds import Batch, Probe, Value, of_agent, of_capacity, of_group, of_norm

from sparserl.agents.table import agent_spec
from sparserl.layers.linear import linear

AGENT: dict[str, Value] = {
    "agent.learning_rate": 0.5,
    "agent.weight_decay": 0.25,
    "agent.batch_size": 9,
    "agent.buffer_size": 50,
    "agent.learning_starts": 30,
    "agent.gamma": 0.5,
    "agent.tau": 0.25,
    "agent.net_arch": [6, 5],
}
AGENT_PROBES = {
    "agent.learning_rate": of_group("lr"),
    "agent.weight_decay": of_group("weight_decay"),
    **{f"agent.{name}": of_agent(name) for name in ("batch_size", "buffer_size", "learning_starts", "gamma", "tau")},
}
OWN: dict[str, dict[str, Value]] = {
    "td3": {
        "agent.n_critics": 5,
        "agent.critic_subset": 3,
        "agent.actor_q": "mean",
        "agent.policy_delay": 3,
        "agent.target_policy_noise": 0.125,
        "agent.target_noise_clip": 0.25,
        "agent.action_noise_std": 0.375,
    },
    "sac": {
        "agent.n_critics": 4,
        "agent.critic_subset": 2,
        "agent.actor_q": "mean",
        "agent.policy_delay": 20,
        "agent.target_entropy": -3.0,
        "agent.initial_ent_coef": 0.5,
        "agent.target_update_interval": 7,
    },
}
OWN_PROBES: dict[str, Probe] = {
    **{
        name: of_agent(name.partition(".")[2])
        for options in OWN.values()
        for name in options
        if name not in ("agent.action_noise_std", "agent.n_critics", "agent.initial_ent_coef")
    },
    "agent.n_critics": lambda built: len(built.agent.critic.q_networks),
    "agent.initial_ent_coef": lambda built: round(float(built.agent.log_ent_coef.detach().exp()), 3),
    "agent.action_noise_std": lambda built: built.agent.action_noise._sigma[0],
}


def _blocks(network: Any) -> int:
    return (len(network) - 2) // 2


OF_BLOCKS: dict[str, tuple[dict[str, Value], dict[str, Probe]]] = {
    **dict.fromkeys(
        ("ds_td3", "ds_sac"),
        (
            {"agent.actor_width": 6, "agent.actor_blocks": 2, "agent.critic_width": 7, "agent.critic_blocks": 3},
            {
                "agent.actor_width": lambda built: linear(built.agent.acting.network[0]).shape[0],
                "agent.actor_blocks": lambda built: _blocks(built.agent.acting.network),
                "agent.critic_width": lambda built: linear(built.agent.critic.qf0[0]).shape[0],
                "agent.critic_blocks": lambda built: _blocks(built.agent.critic.qf0),
            },
        ),
    ),
    "ds_dqn": (
        {"agent.q_width": 6, "agent.q_blocks": 3},
        {
            "agent.q_width": lambda built: linear(built.agent.q_net.q[0]).shape[0],
            "agent.q_blocks": lambda built: _blocks(built.agent.q_net.q),
        },
    ),
}
"""Sizes of residual blocks and their probes, of kinds whose networks may have some."""


def residual_blocks(kind: str, arch: Value) -> Batch:
    """Another kind of network, and its sizes.

    Args:
        kind: Key of `OF_BLOCKS`.
        arch: `agent.net_arch` where it is not given.
    """
    sizes, probes = OF_BLOCKS[kind]
    return Batch(
        kind,
        "residual blocks",
        {"agent.network": "simba", **sizes},
        {"agent.net_arch": arch},
        {"agent.network": lambda built: built.agent.policy.network, **probes},
    )


def agent_batches(kind: str, algo: str, *, alone: bool) -> list[Batch]:
    """Hyper-parameters of an agent."""
    learned = {"agent.ent_coef": "auto"}
    ours = [] if kind not in OWN else [f"agent.{name}" for name in agent_spec(kind).config.ours_alone]
    own = {name: value for name, value in OWN[algo].items() if name not in ours}
    probes = {name: OWN_PROBES[name] for name in own}
    batches = [Batch(kind, "agent", {**AGENT, **own}, learned if algo == "sac" else {}, {**AGENT_PROBES, **probes})]
    if algo == "sac":
        batches.append(
            Batch(kind, "fixed temperature", {"agent.ent_coef": 0.125}, {}, {"agent.ent_coef": of_agent("ent_coef")})
        )
    batches.append(
        Batch(
            kind,
            "decoupled weight decay",
            {"agent.decoupled_weight_decay": True},
            {"agent.weight_decay": 0.25},
            {"agent.decoupled_weight_decay": of_group("decoupled_weight_decay")},
        )
    )
    if not alone:
        return batches
    updates: dict[str, Value] = {"agent.train_freq": 3, "agent.gradient_steps": -1}
    steps = {"agent.n_steps": 3, "agent.n_steps_delay": 5}
    forget = {
        "agent.dynamic_capacity": True,
        "agent.forget_interval_steps": 7,
        "agent.forget_threshold": 0.5,
        "agent.forget_minimum": 11,
    }
    return [
        *batches,
        Batch(
            kind,
            "rounds of updates",
            updates,
            {},
            {
                "agent.train_freq": lambda built: built.agent.train_freq.frequency,
                "agent.gradient_steps": of_agent("gradient_steps"),
            },
        ),
        Batch(
            kind,
            "steps",
            steps,
            {},
            {
                f"agent.{n}": (lambda built, n=n: getattr(built.agent.replay_buffer, n))
                for n in ("n_steps", "n_steps_delay")
            },
        ),  # type: ignore[misc]
        *([] if kind not in OF_BLOCKS else [residual_blocks(kind, [256, 256])]),
        Batch(
            kind,
            "capacity",
            forget,
            {},
            {
                "agent.dynamic_capacity": lambda built: built.agent.replay_buffer.capacity is not None,
                **{name: of_capacity(name.partition("forget_")[2]) for name in forget if "forget" in name},
            },
        ),
        Batch(
            kind,
            "fresh noise",
            {"agent.replay": "redraw_noise"},
            {"wrappers.noise_fraction": 0.5},
            {"agent.replay": lambda built: "redraw_noise" if built.agent.replay_buffer._generator else "stored"},
        ),
    ]


QUANTILES: dict[str, Value] = {"agent.n_quantiles": 7, "agent.top_quantiles_to_drop_per_net": 3}
OF_NORMS = {
    "agent.batch_norm_momentum": ("momentum", 0.25),
    "agent.batch_norm_eps": ("eps", 0.5),
    "agent.renorm_warmup_steps": ("warmup_steps", 9),
}
CROSSQ: dict[str, Value] = {
    "agent.critic_arch": [6, 5],
    "agent.policy_delay": 5,
    **{name: value for name, (_, value) in OF_NORMS.items()},
}
CROSSQ_PROBES: dict[str, Probe] = {
    "agent.critic_arch": lambda built: [layer.bias.numel() for layer in built.agent.critic.qf0][:-1],
    "agent.policy_delay": of_agent("policy_delay"),
    **{name: of_norm(attribute) for name, (attribute, _) in OF_NORMS.items()},
}
OF_VALUES: dict[str, Value] = {
    "agent.target_update_interval": 7,
    "agent.exploration_initial_eps": 0.75,
    "agent.exploration_final_eps": 0.25,
    "agent.exploration_fraction": 0.5,
    "agent.max_grad_norm": 2.5,
    "agent.double_q": True,
    "agent.loss": "huber",
}
