"""How dense a config makes layers, and what of it is refused."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import pytest
from support.topology_configs import rule_of

from sparserl.errors import ConfigError, SparserlError, TopologyError
from sparserl.topology.budget import BUDGET
from sparserl.topology.config import TopologyConfig
from sparserl.topology.config_options import PARTS
from sparserl.topology.density import OF_OUTPUT_LAYER, Shape
from sparserl.topology.methods import METHODS

ACTOR: list[Shape] = [(256, 17), (256, 256), (6, 256)]


def mlp(n_in: int, n_out: int) -> list[Shape]:
    return [(256, n_in), (256, 256), (n_out, 256)]


# --- where a schedule begins -----------------------------------------------------------------------


def first(config: TopologyConfig) -> list[float]:
    """Densities that an actor begins with."""
    return [round(density, 3) for density in config.first_densities(ACTOR)]


@pytest.mark.parametrize("method", METHODS)
def test_what_layers_begin_with(method: str) -> None:
    of_method = {"dense": {}, "srigl": {"output_layer": "sparse", "salient_share": 0.0}}
    given: dict[str, Any] = of_method.get(method, {"output_layer": "sparse"})
    config = TopologyConfig(method=method, density=0.5, **given)
    # ERK at 0.5: topology.md 1.1.
    expected = {name: [1.0, 1.0, 1.0] for name in ("dense", "gmp", "imp", "lamp", "global_magnitude", "obd", "granet")}
    expected["mest"] = [1, 0.546, 1]  # granet_sparse: .5
    expected["top_kast"] = [1, 0.91, 1]  # as many more learn unused
    assert first(config) == expected.get(method, [1, 0.455, 1])


def test_a_schedule_of_ones_own_decides_what_layers_begin_with() -> None:
    assert first(TopologyConfig(method="set", density_schedule="cubic", last_update=50)) == [1, 1, 1]
    assert first(TopologyConfig(method="gmp", density_schedule="constant", output_layer="dense")) == [1, 0.467, 1]


def test_a_schedule_may_begin_at_any_density() -> None:
    # topology.md 1.1: ERK at .8 sparsity 1, .1282, 1 and at .5 sparsity 1, .4551, 1.
    config = TopologyConfig(method="gmp", density=0.2, initial_density=0.5)
    assert first(config) == [1, 0.455, 1]
    assert [round(density, 4) for density in config.densities(ACTOR)] == [1, 0.1282, 1]
    topology, goal = config.initial((256, 256), 0.1282, 0, "net.1", 0.4551), config.goal((256, 256), 0.1282)
    assert (topology.nnz, goal) == (round(0.4551 * 65_536 + 0.5), round(0.1282 * 65_536 + 0.5))


def test_a_layer_that_would_begin_below_its_density_is_refused() -> None:
    config = TopologyConfig(method="gmp", density=0.5, initial_density=0.2)
    with pytest.raises(TopologyError, match=r"256 x 256 would begin with .* raise topology.initial_density 0.2"):
        config.first_densities(ACTOR)


# --- densities --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "densities"),
    [
        # ERK at 0.5 over the two hidden layers: .5 * 69,888 = 34,944 = 4352 + 30,592.
        ({}, [1, 30_592 / 65_536, 1]),
        ({"output_layer": "sparse"}, [1, 29_824 / 65_536, 1]),  # topology.md 1.1
        ({"method": "rigl"}, [1, 29_824 / 65_536, 1]),
        ({"method": "rigl", "density": 0.05}, [0.2140, 0.0267, 0.5819]),
        ({"method": "rigl", "density": 0.1}, [0.4481, 0.0558, 1]),
        ({"method": "rigl", "density": 0.1, "allocation": "uniform"}, [0.1, 0.1, 0.1]),
        ({"method": "rigl", "density": 0.1, "allocation": "uniform", "output_layer": "dense"}, [0.1, 0.1, 1]),
        ({"method": "set", "density": 0.3, "allocation": "uniform"}, [0.3, 0.3, 1]),
        ({"density": (0.2, 0.4)}, [0.2, 0.4, 1]),
        ({"density": (0.2, 0.4, 0.6), "output_layer": "sparse"}, [0.2, 0.4, 0.6]),
        ({"epsilon": (7, 64)}, [1911 / 4352, 0.5, 1]),
        ({"epsilon": (7, 64, 3), "output_layer": "sparse"}, [1911 / 4352, 0.5, 0.5117]),  # 3 * 262 / 1536
        ({"epsilon": (7, 64), "density": (0.2, 0.4)}, [0.2, 0.4, 1]),  # density wins
        ({"epsilon": (7, 64), "density": 0.2, "allocation": "uniform"}, [0.2, 0.2, 1]),
        ({"density": 1.0}, [1, 1, 1]),
        ({"method": "dense"}, [1, 1, 1]),
        ({"method": "dense", "density": 0.1}, [1, 1, 1]),
        ({"method": "dense", "epsilon": (7, 64)}, [1, 1, 1]),
        ({"method": "static", "epsilon": (7, 64)}, [1911 / 4352, 0.5, 1]),
    ],
)
def test_densities_of_the_half_cheetah_actor(fields: dict[str, Any], densities: list[float]) -> None:
    assert TopologyConfig(**fields).densities(ACTOR) == pytest.approx(densities, abs=5e-5)


@pytest.mark.parametrize(
    ("fields", "actor", "critic"),
    [
        ({"method": "rigl", "density": 0.1}, [0.4481, 0.0558, 1], [0.4141, 0.0683, 1]),  # topology.md 1.1
        ({"method": "rigl", "density": 0.1, "actor_density": 0.05}, [0.2140, 0.0267, 0.5819], [0.4141, 0.0683, 1]),
        (
            {"method": "rigl", "actor_density": 0.05, "critic_density": 0.2},
            [0.2140, 0.0267, 0.5819],
            [0.8436, 0.1391, 1],
        ),
        ({"critic_density": (0.2, 0.4), "density": (0.1, 0.3)}, [0.1, 0.3, 1], [0.2, 0.4, 1]),
        ({"actor_density": [0.2, 0.4], "epsilon": (7, 64)}, [0.2, 0.4, 1], [1953 / 5888, 0.5, 1]),
        ({"method": "anf", "density": (0.2, 1.0)}, [0.2, 1, 1], [0.2, 1, 1]),
    ],
)
def test_each_network_may_have_a_density_of_its_own(
    fields: dict[str, Any], actor: list[float], critic: list[float]
) -> None:
    config = TopologyConfig(**fields)
    assert config.of("actor").densities(ACTOR) == pytest.approx(actor, abs=5e-5)
    assert config.of("critic").densities(mlp(23, 1)) == pytest.approx(critic, abs=5e-5)
    for network in ("actor", "critic"):
        assert config.of(network).of("actor") == config.of(network)
        assert config.of(network).rule() == config.rule()


def test_a_group_without_a_density_of_its_own_has_the_common_one() -> None:
    """Which groups an agent has, and that none is named in vain, is the agent's matter (`agents/table.py`)."""
    config = TopologyConfig(density=0.3, actor_density=0.1)
    assert (config.of("actor").density, config.of("q_net").density) == (0.1, 0.3)


# sparse-rl.md 1.2
@pytest.mark.parametrize(
    ("n_obs", "n_act", "factor", "actor", "critic"),
    [
        (17, 6, 7, 0.439, 0.332),
        (11, 3, 7, 0.664, 0.527),
        (111, 8, 40, 0.517, 0.492),
        (376, 17, 61, 0.401, 0.393),
        (27, 8, 40, 1.0, 1.0),  # the trap: Ant-v4 with the factor of Ant-v3 is dense (1.64 and 1.30 before clipping)
    ],
)
def test_ds_td3_densities_from_the_papers_factors(
    n_obs: int, n_act: int, factor: float, actor: float, critic: float
) -> None:
    config = TopologyConfig(method="ds_td3", epsilon=(factor, 64))
    assert [round(d, 3) for d in config.densities(mlp(n_obs, n_act))] == [actor, 0.5, 1.0]
    assert [round(d, 3) for d in config.densities(mlp(n_obs + n_act, 1))] == [critic, 0.5, 1.0]


def test_a_network_of_one_layer() -> None:
    assert TopologyConfig().densities([(3, 4)]) == [1.0]  # only the output layer, and that is dense
    assert TopologyConfig(output_layer="sparse", density=0.25).densities([(3, 4)]) == pytest.approx([0.25])


# --- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "dstd3"}, "unknown topology method 'dstd3'; did you mean 'ds_td3'"),
        (
            {"method": "zzzz"},
            "unknown topology method 'zzzz'; valid: anf, ",
        ),
        ({"drop": "weight_magnitud"}, "unknown drop criterion 'weight_magnitud'; did you mean 'weight_magnitude'"),
        ({"grow": "randon"}, "unknown grow criterion 'randon'; did you mean 'random'"),
        ({"decay": "cosin"}, "unknown drop fraction decay 'cosin'; did you mean 'cosine'"),
        ({"density": 0.0}, "density must be in"),
        ({"density": 1.5}, "density must be in"),
        ({"density": (0.5, 0.0)}, "density must be in"),
        ({"end_fraction": 1.1}, "end_fraction must be in"),
        ({"end_fraction": -0.1}, "end_fraction must be in"),
        ({"begin_fraction": -0.1}, r"begin_fraction must be in \[0, 1\], got -0.1"),
        ({"begin_fraction": 1.1}, r"begin_fraction must be in \[0, 1\], got 1.1"),
        ({"method": "gmp", "end_fraction": 0.1}, "end_fraction must not come before begin_fraction 0.2, got 0.1"),
        ({"begin_fraction": 0.96}, "end_fraction must not come before begin_fraction 0.96, got 0.94"),
        ({"method": "gmp", "first_update": 9, "last_update": 8}, "first_update where pruning begins, 9, got 8"),
        ({"density_schedule": "cubik"}, "unknown density schedule 'cubik'; did you mean 'cubic'"),
        ({"method": "static", "density_schedule": "cubic"}, "'static' never rewires and takes no density_schedule"),
        ({"gradient_batches": 3}, "growth 'random' looks at no gradient"),
        (
            {"gradient_weight": 0.5},
            "drop 'signed_magnitude' looks at no gradient, so gradient_weight must be 0, got 0.5",
        ),
        ({"gradient_weight": -0.5}, "gradient_weight must not be negative, got -0.5"),
        ({"schedule_share": 0.0}, r"schedule_share must be in \(0, 1\], got 0.0"),
        ({"initial_density": 0.5}, "initial_density 0.5 is where a density schedule begins"),
        ({"method": "static", "initial_density": 0.5}, "'static' never rewires and takes no initial_density"),
        ({"allocation": "uniform_plus"}, "uniform_plus is about the output layer, which stays dense"),
        ({"allocation": "erk_plus", "output_layer": "sparse"}, "erk_plus and topology.output_density go together"),
        ({"output_density": 0.5}, "erk_plus and topology.output_density go together"),
        ({"method": "rigl", "gradient_batches": 0}, "gradient_batches must be at least 1, got 0"),
        ({"actor_density": 0.0}, r"density must be in \(0, 1\], got 0.0"),
        ({"critic_density": (0.5, 1.5)}, r"density must be in \(0, 1\], got \(0.5, 1.5\)"),
        ({"method": "dense", "actor_density": 0.5}, "'dense' is dense and takes no actor_density, got 0.5"),
        ({"method": "dense", "critic_density": 0.5}, "'dense' is dense and takes no critic_density, got 0.5"),
        ({"recycle_interval": 0}, "recycle_interval must be at least 1, got 0"),
        ({"recycle_threshold": -0.1}, r"recycle_threshold must be in \[0, 1\), got -0.1"),
        ({"recycle_threshold": 1.0}, r"recycle_threshold must be in \[0, 1\), got 1.0"),
        ({"recycle_threshold": float("nan")}, r"recycle_threshold must be in \[0, 1\), got nan"),
        ({"drop_fraction": 1.0}, "drop_fraction must be in"),
        ({"update_interval": 0}, "update_interval must be at least 1"),
        ({"first_update": 0}, "update_interval and first_update must be >= 1"),
    ],
)
def test_wrong_names_and_numbers_are_refused_at_once(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SparserlError, match=message):
        TopologyConfig(**fields)


@pytest.mark.parametrize(
    ("field", "name", "closest"),
    [
        ("allocation", "uniforn", "uniform"),
        ("output_layer", "dence", "dense"),
        ("new_value", "unifrm", "uniform"),
        ("initial_value", "sparse_xavir", "sparse_xavier"),
        ("moments", "zreo", "zero"),
        ("target", "shard", "shared"),
    ],
)
def test_a_wrong_name_of_a_part_gives_the_closest(field: str, name: str, closest: str) -> None:
    with pytest.raises(SparserlError, match=f"unknown .* '{name}'; did you mean '{closest}'"):
        TopologyConfig(**{field: name})  # type: ignore[arg-type]


def test_a_cosine_may_wait_for_the_length_of_the_run() -> None:
    config = TopologyConfig(method="set", decay="cosine").for_run(1000)
    assert rule_of(config).fraction(500) == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"density": (0.2, 0.4, 0.6)}, "2 .*need as many densities, got 3"),
        ({"density": (0.2, 0.4), "output_layer": "sparse"}, "3 .*need as many densities, got 2"),
        ({"epsilon": (7, 7, 7)}, "2 .*need as many epsilon, or one, got 3"),
        ({"epsilon": (7, -64)}, "epsilon must be positive"),
    ],
)
def test_what_does_not_fit_the_network_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SparserlError, match=message):
        TopologyConfig(**fields).densities(ACTOR)


@pytest.mark.parametrize("field", [{"drop": "random"}, {"drop_fraction": 0.5}, {"last_update": 10}])
@pytest.mark.parametrize("method", ["static", "dense"])
def test_a_method_that_never_rewires_takes_no_rule(method: str, field: dict[str, object]) -> None:
    with pytest.raises(SparserlError, match=r"never rewires and takes no|unknown drop criterion"):
        TopologyConfig(method=method, **field)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [
        {"drop": "connection_importance"},
        {"grow": "neuron_importance"},
        {"drop": "connection_importance", "grow": "neuron_importance"},
        {"method": "rigl", "grow": "neuron_importance"},
        {"method": "set", "drop": "connection_importance", "last_update": 10},
    ],
)
def test_an_agent_measures_no_importance(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="importance need a continual learner") as refused:
        TopologyConfig(**fields)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "field",
    [
        "decay",
        "density_schedule",
        "budget",
        "budget_scope",
        "fan_in",
        "initial_topology",
        "initial_value",
        "new_value",
        "moments",
        "target",
        "allocation",
        "output_layer",
    ],
)
def test_the_type_of_a_part_names_what_is_in_its_table(field: str) -> None:
    named = {name for one in get_args(get_type_hints(TopologyConfig)[field]) for name in get_args(one) or (one,)}
    assert named - {type(None)} == set(PARTS[field][1])
    for name in PARTS[field][1]:
        needed: dict[str, Any] = {"output_layer": "sparse"} if name in OF_OUTPUT_LAYER else {}
        needed |= {"output_density": 0.5} if name == "erk_plus" else {}
        needed |= {"density_schedule": "cubic"} if field == "budget" and BUDGET[name].shares_goals else {}
        needed |= {"budget": "survivors"} if (field, name) == ("budget_scope", "all") else {}
        needed |= {"grow": "gradient", "shrink_at_end": False} if field == "fan_in" and name != "free" else {}
        needed |= {"initial_topology": name} if field == "fan_in" and name.startswith("of_") else {}
        assert getattr(TopologyConfig(**{field: name, **needed}), field) == name  # type: ignore[arg-type]


def test_lists_are_taken_and_text_is_not() -> None:
    assert TopologyConfig(density=[0.5, 0.5]).density == (0.5, 0.5)  # type: ignore[arg-type]
    with pytest.raises(SparserlError, match="density must be in"):
        TopologyConfig(density="0.5")  # type: ignore[arg-type]
    with pytest.raises(SparserlError, match="last_update must not be negative"):
        TopologyConfig(last_update=-1)


def test_epsilon_that_leaves_no_layer_sparse_is_refused() -> None:
    config = TopologyConfig(epsilon=(7.0, 64.0))
    with pytest.raises(SparserlError, match=r"epsilon \(7.0, 64.0\) makes every layer of widths \[8, 8\] dense"):
        config.densities([(8, 11), (8, 8), (3, 8)])
