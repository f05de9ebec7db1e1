"""Options that have no effect, or none together, and what the line says that refuses them."""

from __future__ import annotations

from typing import Any

Refused = dict[str, tuple[str, dict[str, Any], str]]
"""What it is -> kind, as in `support.option_kinds`; options; what the line says."""
USUAL = {"agent.net_arch": [256, 256]}
# What has no effect, or none together: kind, options, and what the line says.
REFUSED: Refused = {
    "budget of networks": (
        "moving classifier",
        {"topology.budget": "survivors", "topology.budget_scope": "all"},
        "agents: a classifier is one network",
    ),
    "name of a sequence": ("classifier", {"sequence_name": "x"}, "--sequence-name x is for a sequence from a file"),
    "device": ("ds_td3", {"device": "cuda"}, "no kernels for device 'cuda'"),
    "forget interval": ("ds_td3", {"agent.forget_interval_steps": 7}, "agent.forget_interval_steps 7 has no effect"),
    "forget threshold": ("sac", {"agent.forget_threshold": 0.5}, "it needs agent.dynamic_capacity"),
    "forget minimum": ("td3", {"agent.forget_minimum": 7}, "it needs agent.dynamic_capacity"),
    "delay of steps": ("ds_sac", {"agent.n_steps_delay": 7}, "needs agent.n_steps above 1"),
    "redrawn noise": ("ds_td3", {"agent.replay": "redraw_noise"}, "set --wrappers.noise-fraction"),
    "target entropy": ("ds_sac", {"agent.ent_coef": 0.5, "agent.target_entropy": -3.0}, "needs agent.ent_coef auto"),
    "first temperature": (
        "ds_sac",
        {"agent.ent_coef": 0.5, "agent.initial_ent_coef": 0.1},
        "needs agent.ent_coef auto",
    ),
    "decay that is none": ("ds_sac", {"agent.decoupled_weight_decay": True}, "needs agent.weight_decay above 0"),
    "dense blocks": ("sac", {"agent.network": "simba", **USUAL}, "--algo ds_sac --topology.method dense"),
    "blocks of batches": ("ds_crossq", {"agent.network": "simba", **USUAL}, "use ds_sac"),
    "hidden widths of blocks": ("ds_td3", {"agent.network": "simba", "agent.net_arch": [6]}, "simba has widths"),
    **{
        f"{name} of a perceptron": ("ds_td3", {f"agent.{name}": 7}, f"agent.{name} 7 has no effect")
        for name in ("actor_width", "actor_blocks", "critic_width", "critic_blocks")
    },
    "width of a perceptron": ("ds_dqn", {"agent.q_width": 7}, "agent.q_width 7 has no effect"),
    "critics of targets": ("sac", {"agent.critic_subset": 2}, "not for sac"),
    "critics of the actor": ("td3", {"agent.actor_q": "mean"}, "--algo ds_td3 --topology.method dense"),
    "delay of the actor": ("sac", {"agent.policy_delay": 2}, "--algo ds_sac --topology.method dense"),
    "more than all critics": ("ds_sac", {"agent.critic_subset": 3}, "at most agent.n_critics 2"),
    "noise clip": (
        "td3",
        {"agent.target_policy_noise": 0.0, "agent.target_noise_clip": 0.25},
        "needs agent.target_policy_noise above 0",
    ),
    "hidden twice": (
        "ds_td3",
        {"wrappers.hide_velocities": True, "wrappers.hidden_features": [1]},
        "hidden-features does not go with wrappers.hide-velocities",
    ),
    "noise std": ("ds_td3", {"wrappers.noise_std": 2.0}, "needs wrappers.noise-fraction"),
    "order": ("ds_td3", {"wrappers.permute_every_steps": 9}, "needs wrappers.permute"),
    "noise of several": (
        "sac",
        {"agent.replay": "redraw_noise", "wrappers.noise_fraction": 0.5, "n_envs": 3},
        "redraw_noise is for one environment, got --n-envs 3",
    ),
    "orders of several": (
        "td3",
        {"wrappers.permute": True, "wrappers.permute_every_steps": 9, "n_envs": 2},
        "--wrappers.permute-every-steps is for one environment",
    ),
    "buffer of several": ("ds_sac", {"agent.buffer_size": 4, "n_envs": 5}, "--agent.buffer-size 4 holds no transition"),
    "minimum of several": (
        "ds_td3",
        {"agent.dynamic_capacity": True, "agent.forget_minimum": 99, "n_envs": 3},
        "--agent.forget-minimum 99 must be below the 99 transitions",
    ),
    "rate of tasks": (
        "tasks, ds_sac",
        {"agent.learning_rate_schedule": "linear"},
        "--agent.learning-rate-schedule is for `sparserl train`",
    ),
    "statistics": ("ds_td3", {"wrappers.normalization": "FOLDER/statistics.json"}, "needs wrappers.normalize-observ"),
    "untracked films": ("ds_td3", {"wandb.video_every_steps": 5}, "--wandb.video-every-steps is for runs that are tra"),
    "films": ("classifier", {"track": True, "wandb.video_every_steps": 5}, "there is nothing to film here"),
    "allocation": ("ds_td3", {"topology.epsilon": [2, 2], "topology.allocation": "uniform"}, "shares out one density"),
    "static": ("ds_td3", {"topology.method": "static", "topology.new_value": "uniform"}, "never rewires and takes no"),
    "momentum": ("classifier", {"learner.momentum": 0.5}, "learner.momentum 0.5 has no effect on adam; it is for sgd"),
    **{
        f"{name} of classifiers": ("moving classifier", {f"topology.{name}": value}, message)
        for name, value, message in (
            ("actor_density", 0.5, "--topology.actor-density is for agents"),
            ("critic_density", 0.5, "--topology.critic-density is for agents"),
            ("target", "shared", "--topology.target is for agents"),
            ("recycle_interval", 5, "--topology.recycle-interval is for `sparserl train`"),
            ("recycle_threshold", 0.5, "--topology.recycle-threshold is for `sparserl train`"),
        )
    },
    "relevance of classifiers": (
        "moving classifier",
        {"topology.recycle_interval": 5, "topology.recycle_by": "relevance"},
        "--topology.recycle-interval is for `sparserl train`",
    ),
    "rewards of tasks": (
        "tasks, ds_sac",
        {"wrappers.normalize_rewards": 0.5},
        "--wrappers.normalize-rewards is for `sparserl train`",
    ),
    "network of a method without one": ("classifier", {"method": "ridge", "learner.epochs": 2}, "has none; leave it"),
    "moving packnet": (
        "moving classifier",
        {"method": "packnet"},
        "connections must stay where they are: use --topology.method static, not ds_td3",
    ),
    "moving spacenet": ("moving classifier", {"method": "spacenet"}, "leave --topology.method ds_td3"),
    "sparse spacenet": (
        "classifier",
        {"method": "static_sparse", "topology.density": 0.5},
        "leave --topology.method static",
    ),
    "old density": (
        "classifier",
        {"learner.density": 0.5, "topology.density": 0.5},
        "learner.density 0.5 is topology.density by its old name",
    ),
    "closed outputs": (
        "classifier",
        {"scenario": "task", "learner.unseen_outputs": "closed"},
        "closed is for --scenario class",
    ),
    "another method": ("classifier", {"ewc.strength": 3.0}, "--ewc.strength is an option of ewc; method naive"),
    "another rl method": ("tasks, ds_sac", {"agem.batch_size": 5}, "--agem.batch_size is an option of agem"),
    "steps of a file": ("tasks, ds_sac", {"steps_per_task": 5}, "says itself what its tasks are"),
    "tasks of a file": ("tasks, ds_sac", {"tasks": 5}, "says itself what its tasks are"),
    "temperature": ("tasks, ds_td3", {"border.temperature": "kept"}, "--border.temperature kept is for a temperature"),
    "fixed temperature": (
        "tasks, ds_sac",
        {"agent.ent_coef": 0.5, "border.temperature": "kept"},
        "--border.temperature kept is for a temperature",
    ),
    **{
        f"{name} of tasks": ("tasks, ds_sac", options, "is for `sparserl train`")
        for name, options in {
            "recycling": {"topology.recycle_interval": 5, "topology.recycle_by": "relevance"},
            "steps": {"agent.n_steps": 3},
            "blocks": {"agent.network": "simba", **USUAL},
            "capacity": {"agent.dynamic_capacity": True, "agent.forget_minimum": 5},
            "noise": {"agent.replay": "redraw_noise"},
            "rollouts": {"agent.train_freq": 2},
            "updates": {"agent.gradient_steps": -1},
            "running": {"wrappers.normalize_observations": "running"},
            "order": {"wrappers.permute": True, "wrappers.permute_every_steps": 9},
        }.items()
    },
}
# A file may hold these for several runs, of which some are tracked.
BY_FLAGS: Refused = {
    "untracked mode": ("ds_td3", {"wandb.mode": "offline"}, "--wandb.mode is for runs that are tracked: add --track"),
    "untracked project": ("classifier", {"wandb.project": "x"}, "--wandb.project is for runs that are tracked"),
    "untracked entity": ("classifier", {"wandb.entity": "x"}, "--wandb.entity is for runs that are tracked"),
    "untracked at trackio": (
        "fit",
        {"trackio.project": "x"},
        "--trackio.project is for runs that are tracked: add --track t",
    ),
    "untracked tags": ("tasks, ds_sac", {"wandb.tags": ["x"]}, "--wandb.tags is for runs that are tracked"),
}
WHEN_BUILT: Refused = {
    "nothing to move": (
        "moving classifier",
        {"topology.density": 1.0},
        "--topology.method ds_td3 moves connections, and all exist: lower --topology.density",
    ),
    "pruning to come": (
        "moving classifier",
        {"topology.method": "gmp", "topology.last_update": 4000},
        "within the run's 940 updates",
    ),
    "dense": ("td3", {"topology.method": "ds_td3"}, "td3 is dense and takes no topology"),
    "steps to come": (
        "ds_td3",
        {"topology.method": "gmp", "topology.last_update": 4000},
        "within the run's 380 updates",
    ),
    "density of tasks": (
        "tasks, ds_sac",
        {"method": "spacenet", "topology.actor_density": 0.5},
        "spacenet decides itse",
    ),
    "output of tasks": ("tasks, ds_sac", {"method": "spacenet", "topology.output_layer": "sparse"}, "spacenet decides"),
    "density of all": (
        "tasks, ds_sac",
        {"method": "spacenet", "spacenet.critics": True, "topology.density": 0.5},
        "leave --topology.density out",
    ),
    **{
        f"scratch, {option}": (
            "tasks, ds_sac",
            {"method": "scratch", f"border.{option}": value},
            f"scratch begins each task like a fresh agent: use --border.{option} ",
        )
        for option, value in {
            "buffer": "kept",
            "optimizer": "kept",
            "temperature": "kept",
            "exploration": "policy",
        }.items()
    },
}
