"""What a `sparserl train` command line resolves to, and the presets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.envs import FunctionEnv

from sparserl.agents.critics_config import SACConfig, TD3Config
from sparserl.agents.dqn_config import DQNConfig
from sparserl.agents.ds_crossq import CrossQConfig
from sparserl.agents.ds_tqc import TQCConfig
from sparserl.agents.on_policy_config import A2CConfig, PPOConfig, RecurrentPPOConfig
from sparserl.agents.table import AGENTS, make_agent
from sparserl.cli import main
from sparserl.cli.running import read
from sparserl.errors import ConfigError
from sparserl.experiment.presets import presets
from sparserl.experiment.train_config import preset_for
from sparserl.metrics.cost import layer_costs

pytestmark = pytest.mark.usefixtures("tiny_env")


def resolved(*words: str) -> Any:
    return read("train", words).config


def test_a_flag_wins_over_the_config_over_the_preset_over_the_default(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("agent: {tau: 0.25, gamma: 0.5}\n")
    base = resolved("--env", "HalfCheetah-v5")
    assert base.topology.epsilon == (7.0, 64.0)  # the env's preset
    assert resolved("--env", "Pusher-v5").topology.density == 0.5  # the algorithm's
    config = resolved("--env", "HalfCheetah-v5", "--config", str(file), "--agent.gamma", "0.75")
    assert (config.agent.tau, config.agent.gamma, config.agent.batch_size) == (0.25, 0.75, 100)
    assert config.topology == base.topology
    assert resolved("--algo", "td3").topology.method == "dense"
    assert read("train", ["--preset", "ds_td3/Ant-v5", "--env", "Hopper-v5"]).preset == "ds_td3/Ant-v5"


def test_the_algorithm_and_env_of_a_config_file_choose_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("algo: td3\nenv: Ant-v5\n")
    config = resolved("--config", str(file))
    assert (config.algo, config.env, config.topology.method) == ("td3", "Ant-v5", "dense")
    assert resolved("--config", str(file), "--algo", "ds_td3").topology.epsilon == (38.467, 64.0)


def test_integers_may_be_written_as_config_files_may() -> None:
    config = resolved(
        "--total-steps", "1e6", "--agent.net-arch", "3e1", "40", "--topology.last-update", "9007199254740993"
    )
    assert (config.total_steps, list(config.agent.net_arch)) == (1_000_000, [30, 40])
    assert config.topology.last_update == 9_007_199_254_740_993  # which no float is
    for word in ("1.5", "abc", "inf"):
        with pytest.raises(ConfigError, match=f"--total-steps: '{word}' is no integer"):
            resolved("--total-steps", word)


def test_density_and_epsilon_replace_each_other_layer_by_layer(tmp_path: Path) -> None:
    topology = resolved("--env", "HalfCheetah-v5", "--topology.density", "0.1").topology
    assert (topology.density, topology.epsilon) == (0.1, None)
    topology = resolved("--env", "Pusher-v5", "--topology.epsilon", "5", "60").topology
    assert (topology.density, topology.epsilon) == (None, (5.0, 60.0))
    file = tmp_path / "c.yaml"
    file.write_text("topology: {epsilon: [4, 50]}\n")
    topology = resolved("--env", "Pusher-v5", "--config", str(file)).topology
    assert (topology.density, topology.epsilon) == (None, (4.0, 50.0))
    topology = resolved("--env", "Pusher-v5", "--config", str(file), "--topology.density", "0.2").topology
    assert (topology.density, topology.epsilon) == (0.2, None)


def test_the_end_of_rewiring_follows_the_length_of_the_run() -> None:
    def end(*words: str) -> int | None:
        config = resolved(*words)
        rule = config.topology.for_run(config.total_updates).rule()
        assert rule is not None
        return rule.last_update

    assert end("--env", "HalfCheetah-v5") == 925_000
    assert end("--env", "HalfCheetah-v5", "--total-steps", "122500") == 92_500
    assert end("--env", "HalfCheetah-v5", "--topology.last-update", "7") == 7
    assert end("--topology.method", "set", "--topology.decay", "cosine") == 975_000


@pytest.mark.parametrize(
    ("option", "most", "unit"),
    [
        ("agent.policy_delay", 200, "gradient updates"),
        ("topology.first_update", 200, "gradient updates"),
        ("topology.recycle_interval", 200, "gradient updates"),
        ("wrappers.permute-every-steps", 300, "env steps"),
    ],
)
def test_what_would_first_happen_after_the_run_is_refused(option: str, most: int, unit: str) -> None:
    run = ("--env", "HalfCheetah-v5", "--total-steps", "300", "--agent.learning-starts", "100")
    permuted = ("--wrappers.permute", "--wrappers.noise-fraction", "0.5") if "permute" in option else ()
    words = (*run, *permuted, f"--{option.replace('_', '-')}")
    resolved(*words, str(most))
    with pytest.raises(ConfigError, match=f"{option} {most + 1} lies beyond the run of {most} {unit}; give at most"):
        resolved(*words, str(most + 1))


def test_dry_run_prints_the_config_and_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", "--dry-run", "--run-dir", str(run), "--seed", "5"]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["seed"] == 5
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "c.yaml").write_text(printed)
    assert resolved("--config", str(tmp_path / "c.yaml")) == resolved("--seed", "5").resolved()


FROM_THE_PAPERS = {
    TD3Config: {"batch_size": 100, "weight_decay": 2e-4, "learning_starts": 25_000},
    SACConfig: {"batch_size": 256, "weight_decay": 0.0, "ent_coef": "auto", "tau": 0.005, "target_update_interval": 1},
    TQCConfig: {"batch_size": 256, "n_critics": 2, "n_quantiles": 25, "top_quantiles_to_drop_per_net": 2},
    CrossQConfig: {"learning_rate": 1e-3, "policy_delay": 3, "net_arch": (256, 256)},
    PPOConfig: {"n_steps": 2048, "batch_size": 64, "n_epochs": 10, "learning_rate": 3e-4, "net_arch": (64, 64)},
    A2CConfig: {"n_steps": 5, "learning_rate": 7e-4, "optimizer": "rmsprop"},
}
OF_DQN = {"learning_rate": 1e-3, "weight_decay": 1e-6, "batch_size": 128, "max_grad_norm": None}
FROM_THE_PAPERS[RecurrentPPOConfig] = {"net_arch": (64, 64), "lstm_layers": 1}  # of no paper
FROM_THE_PAPERS[DQNConfig] = OF_DQN | {"exploration_initial_eps": 0.01, "target_update_interval": 100}
VARIANTS = {
    "v3": {"net_arch": (256, 256), "train_freq": 4, "exploration_initial_eps": 1.0},  # LunarLander's
    "published": {"batch_size": 256, "weight_decay": 0.0, "ent_coef": 0.2, "tau": 1.0, "target_update_interval": 1000},
    "anf": {"batch_size": 100, "weight_decay": 2e-4, "learning_rate": 1e-3, "replay": "redraw_noise", "tau": 0.005},
    "redq": {"n_critics": 10, "critic_subset": 2, "actor_q": "mean", "policy_delay": 20, "gradient_steps": 20},
    "simba": {"network": "simba", "critic_width": 512, "weight_decay": 0.01, "decoupled_weight_decay": True},
    "ds_dqn/simba": {"network": "simba", "q_width": 128, "weight_decay": 0.01, "decoupled_weight_decay": True},
    "simba-wide": {"network": "simba", "critic_width": 2048, "learning_rate": 1e-4, "initial_ent_coef": 0.01},
    "rlx2": {"batch_size": 256, "n_steps": 3, "n_steps_delay": 300_000, "dynamic_capacity": True},
}


@pytest.mark.parametrize("name", presets())
def test_every_preset_builds(name: str) -> None:
    algo, preset = name.split("/")
    config = resolved("--preset", name)
    assert config.algo == algo
    expected = next(
        (VARIANTS[name] for name in (name, preset, preset.rpartition("-")[2]) if name in VARIANTS),
        FROM_THE_PAPERS[AGENTS[algo].config],
    )
    assert {key: getattr(config.agent, key) for key in expected} == expected
    if preset.endswith("-v5"):
        assert config.env == preset
        assert preset_for(algo, preset) == name


def test_another_kind_of_network_replaces_the_sizes_of_a_preset() -> None:
    config = resolved("--algo", "ds_dqn", "--env", "CartPole-v1", "--agent.network", "simba")
    assert (config.agent.net_arch, config.agent.q_width, config.agent.learning_rate) == ((64, 64), 128, 1e-3)
    config = resolved("--preset", "ds_sac/simba-wide", "--env", "Hopper-v5", "--agent.network", "mlp")
    assert (config.agent.critic_width, config.agent.net_arch) == (512, (256, 256))
    config = resolved("--preset", "ds_sac/simba-wide", "--env", "Hopper-v5", "--agent.network", "simba")
    assert config.agent.critic_width == 2048
    with pytest.raises(ConfigError, match="simba has widths and blocks"):
        resolved("--algo", "ds_dqn", "--env", "CartPole-v1", "--agent.network", "simba", "--agent.net-arch", "9")


@pytest.mark.parametrize("algo", ["ds_td3", "ds_sac"])
def test_the_preset_of_anf_is_sparse_in_the_input_layer_alone(algo: str) -> None:
    config = resolved("--preset", f"{algo}/anf", "--env", "HalfCheetah-v5")
    assert (config.env, config.wrappers.noise_fraction) == ("HalfCheetah-v5", 0.9)
    assert config.topology.densities([(256, 171), (256, 256), (6, 256)]) == [0.2, 1.0, 1.0]
    rule = config.topology.rule()
    assert (rule.drop, rule.grow, rule.drop_fraction, rule.update_interval) == (
        "weight_magnitude",
        "random",
        0.05,
        1000,
    )


def test_the_algorithm_decides_which_options_there_are() -> None:
    assert resolved("--algo", "sac", "--agent.ent-coef", "0.5").agent.ent_coef == 0.5
    with pytest.raises(ConfigError, match=r"unknown option '--agent\.ent-coef'"):
        resolved("--agent.ent-coef", "0.5")
    with pytest.raises(ConfigError, match=r"unknown option '--agent\.action-noise-std'"):
        resolved("--algo", "sac", "--agent.action-noise-std", "1")


def test_a_preset_of_another_algorithm_is_refused() -> None:
    with pytest.raises(ConfigError, match="the preset 'sac/published' is one of sac, not of td3"):
        resolved("--algo", "td3", "--preset", "sac/published")


def test_a_config_file_brings_its_algorithm(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("algo: sac\nagent: {ent_coef: 0.25}\n")
    config = resolved("--config", str(tmp_path / "c.yaml"), "--agent.tau", "0.5")
    assert (config.algo, config.agent.ent_coef, config.agent.tau) == ("sac", 0.25, 0.5)
    (tmp_path / "wrong.yaml").write_text("algo: sac\nagent: {action_noise_std: 2}\n")
    with pytest.raises(ConfigError, match=r"unknown config key 'agent\.action_noise_std'"):
        resolved("--config", str(tmp_path / "wrong.yaml"))


# n_obs and n_action of v5, and the densities of the papers' tables: DS-TD3 (actor; critic), DS-SAC (actor), first and
# second layer.
PAPER = {
    "HalfCheetah-v5": (17, 6, (0.439, 0.500), (0.332, 0.500), (0.753, 0.625)),
    "Walker2d-v5": (17, 6, (0.439, 0.500), (0.332, 0.500), (0.753, 0.625)),
    "Hopper-v5": (11, 3, (0.664, 0.500), (0.527, 0.500), (0.664, 0.15625)),
    "Ant-v5": (105, 8, (0.517, 0.500), (0.492, 0.500), (0.3875, 0.500)),
    "Humanoid-v5": (348, 17, (0.4005, 0.500), (0.3935, 0.500), (0.4005, 0.500)),
}


@pytest.mark.parametrize("env", PAPER)
def test_the_presets_give_the_densities_of_the_paper(env: str) -> None:
    n_obs, n_action, td3_actor, td3_critic, sac_actor = PAPER[env]
    actor = [(256, n_obs), (256, 256), (n_action, 256)]
    critic = [(256, n_obs + n_action), (256, 256), (1, 256)]
    td3 = resolved("--env", env).topology
    for shapes, expected in ((actor, td3_actor), (critic, td3_critic)):
        assert td3.densities(shapes) == pytest.approx([*expected, 1.0], abs=2e-3)
    for words in (["--algo", "ds_sac", "--env", env], ["--preset", f"ds_sac/{env}-published"]):
        sac = resolved(*words).topology
        assert sac.method == "ds_sac"
        assert sac.densities(actor) == pytest.approx([*sac_actor, 1.0], abs=1e-3)


def test_the_default_preset_gives_its_density_to_a_whole_network() -> None:
    config = resolved("--env", "Pusher-v5")
    agent = make_agent(
        "ds_td3", config.agent, config.topology, FunctionEnv(n_obs=23, n_action=7), seed=0, acts_only=True
    )
    hidden = layer_costs(agent.actor)[:2]
    weights, dense = sum(layer.weights for layer in hidden), sum(layer.weights_dense for layer in hidden)
    assert weights / dense == pytest.approx(0.5, abs=1e-3)


def test_a_checkpoint_without_a_run_is_refused_unless_an_older_version_wrote_it(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("env: Pendulum-v1\norigin: {run: null, checkpoint: best, prune_by: null}\n")
    assert resolved("--config", str(file)).origin.run is None
    with pytest.raises(ConfigError, match=r"origin.prune_by lamp has no effect: it needs origin.run"):
        resolved("--env", "Pendulum-v1", "--origin.prune-by", "lamp")


@pytest.mark.parametrize("algo", ["ds_td3", "sac", "ds_dqn", "ppo", "ds_a2c"])
def test_the_learning_rate_falls_to_nothing(algo: str) -> None:
    env = "CartPole-v1" if "dqn" in algo else "Tiny-v0"
    config = resolved("--algo", algo, "--env", env, "--lr-schedule", "cosine", "--agent.learning-rate", "0.5")
    assert config.agent.learning_rate_schedule == "cosine"
    agent = config.make_agent(config.make_envs())
    assert [agent.lr_schedule(left) for left in (1.0, 0.5, 0.0, -0.1)] == pytest.approx([0.5, 0.25, 0.0, 0.0])
    linear = resolved("--algo", algo, "--env", env, "--lr-schedule", "linear", "--agent.learning-rate", "0.5").agent
    assert [linear.rate(left) for left in (1.0, 0.25, -0.1)] == [0.5, 0.125, 0.0]


def test_arguments_of_the_environment_reach_it_and_tell_runs_apart(tmp_path: Path) -> None:
    given = ("--env-kwargs", "g=9", "render_mode_unused=null")
    with pytest.raises(ConfigError, match="cannot be made with"):
        resolved("--env", "Pendulum-v1", *given).make_env()
    config = resolved("--algo", "td3", "--env", "Pendulum-v1", "--env-kwargs", "g=9.5", "--seed", "3")
    assert config.make_env().unwrapped.g == 9.5
    assert config.name == "Pendulum-v1__g=9.5__td3"
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config.plain()))
    assert resolved("--config", str(tmp_path / "c.yaml")) == config
    assert resolved("--config", str(tmp_path / "c.yaml"), "--env-kwargs", "g=8").env_kwargs == {"g": 8}
