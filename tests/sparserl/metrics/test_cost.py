"""Costs against numbers that were worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.envs import FunctionEnv
from torch import nn

from sparserl.agents import DSTD3
from sparserl.agents.cost_meter import CostMeter
from sparserl.agents.critics_config import TD3Config
from sparserl.agents.table import make_agent
from sparserl.layers import SparseLinear
from sparserl.metrics import cost
from sparserl.topology.config import TopologyConfig
from sparserl.topology.structure import SparseTopology


def sparse(n_out: int, n_in: int, flat: list[int], bias: bool = True) -> SparseLinear:
    return SparseLinear(SparseTopology(n_out, n_in, np.array(flat)), bias=bias)


def half_cheetah(algo: str, **topology: Any) -> Any:
    config = TopologyConfig(**topology)
    return make_agent(algo, TD3Config(buffer_size=10), config, FunctionEnv(n_obs=17, n_action=6), seed=0)


def test_sizes_of_sparse_and_dense_layers() -> None:
    network = nn.Sequential(sparse(2, 3, [0, 4, 5]), nn.ReLU(), sparse(4, 2, [1, 7], bias=False), nn.Linear(4, 1))
    assert cost.layer_costs(network) == [
        cost.LayerCost(weights=3, weights_dense=6, biases=2, used=3),
        cost.LayerCost(weights=2, weights_dense=8, biases=0, used=2),
        cost.LayerCost(weights=4, weights_dense=4, biases=1, used=4),
    ]
    assert cost.params_nonzero([network]) == 3 + 2 + 2 + 4 + 1
    assert cost.params_dense([network, nn.Linear(2, 2)]) == 6 + 2 + 8 + 4 + 1 + 6


def test_dense_td3_on_half_cheetah_has_the_weights_that_the_paper_states() -> None:
    agent = half_cheetah("td3", method="dense")
    weights = sum(layer.weights for network in (agent.actor, agent.critic) for layer in cost.layer_costs(network))
    assert weights == 214_784  # 71,424 + 2 * 71,680
    biases = 3 * 512 + 6 + 1 + 1
    assert (
        cost.params_nonzero([agent.actor, agent.critic])
        == weights + biases
        == cost.params_dense([agent.actor, agent.critic])
    )


def test_the_papers_short_rule_gives_its_table() -> None:
    flops = []
    for agent in (half_cheetah("td3", method="dense"), half_cheetah("ds_td3", epsilon=(7, 64))):
        flops.append(1_000_000 * cost.flops_short([(agent.actor, 2), (agent.critic, 1)], 100))
    # 6 * 100 * 1e6 * (2 * 71,680 + 71,424 / 2), and with 2 * 34,977 and 36,215 / 2 connections.
    assert flops[0] == 6e8 * (143_360 + 35_712) == pytest.approx(1.074e14, rel=1e-3)
    assert flops[1] == 6e8 * (2 * (1953 + 32768 + 256) + (1911 + 32768 + 1536) / 2)
    assert flops[1] / flops[0] == pytest.approx(0.492, abs=5e-4)


def test_bytes_are_measured() -> None:
    layer = sparse(4, 3, [0, 5, 11])
    assert cost.bytes_parameters([layer, nn.Linear(2, 2)]) == 4 * (3 + 4) + 4 * 6
    optimizer = torch.optim.Adam(layer.parameters())
    assert cost.bytes_optimizer([optimizer]) == 0
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert cost.bytes_optimizer([optimizer]) == 2 * 4 * (3 + 4) + 2 * 4  # two moments, and a step count a tensor
    # row_ptr (5 int64) and col (3 int32), and no list of positions beside them; the backward pass adds the transposed
    # order.
    assert cost.bytes_indices([sparse(4, 3, [0, 5, 11])]) == 5 * 8 + 3 * 4
    layer(torch.ones(1, 3, requires_grad=True)).sum().backward()
    assert cost.bytes_indices([layer]) == 5 * 8 + 3 * 4 + 4 * 8 + 2 * 3 * 4
    assert cost.bytes_indices([nn.Linear(2, 2)]) == 0


def learned(method: str, **topology: Any) -> tuple[DSTD3, CostMeter]:
    config = TD3Config(net_arch=(8, 8), learning_starts=10, batch_size=4, buffer_size=100)
    algo = "td3" if method == "dense" else "ds_td3"
    agent = make_agent(algo, config, TopologyConfig(method=method, **topology), FunctionEnv(), seed=0)
    meter = CostMeter(agent)
    agent.learn(31)  # 21 updates, 10 of the actor
    meter.advance()
    return agent, meter  # type: ignore[return-value]


def test_a_restored_meter_goes_on() -> None:
    agent, meter = learned("static")
    agent.train(2, 4)
    restored = CostMeter(agent)
    restored.load_state_dict(meter.state_dict())
    before = meter.flops_train
    agent.train(2, 4)
    for one in (meter, restored):
        one.advance()
    assert restored.flops_train == meter.flops_train > before > 0
    assert restored.flops_train_short == meter.flops_train_short


def test_the_summary_has_the_keys_of_a_result() -> None:
    agent, meter = learned("static", density=0.5)
    summary = meter.summary()
    networks = [agent.actor, agent.critic]
    assert summary["params_nonzero"] == summary["params_used"] == cost.params_nonzero(networks)
    assert summary["params_dense"] == (3 * 8 + 64 + 16 + 18) + 2 * (5 * 8 + 64 + 8 + 17)
    assert summary["density"] == summary["params_nonzero"] / summary["params_dense"]
    assert summary["params_nonzero_targets"] == summary["params_nonzero"]
    assert summary["flops_train"] == meter.flops_train
    assert summary["bytes_parameters"] == 4 * summary["params_nonzero"]
    assert summary["bytes_optimizer"] >= 2 * summary["bytes_parameters"]
    assert summary["bytes_indices"] > 0


def test_the_short_rule_counts_each_update_at_the_size_it_had() -> None:
    config = TD3Config(net_arch=(8, 8), learning_starts=10, batch_size=4, buffer_size=100)
    topology = TopologyConfig(method="ds_td3", density=0.5, update_interval=5, last_update=5, drop_fraction=0.5)
    agent = make_agent("ds_td3", config, topology, FunctionEnv(), seed=0)
    meter = CostMeter(agent)

    def rate() -> float:
        return cost.flops_short([(agent.actor, 2), (agent.critic, 1)], 4)

    before = rate()
    agent.learn(17)  # 7 updates: the critics rewire after the second and only drop after the seventh
    meter.advance()
    assert agent.evolver.events[-1].kind == "shrink"  # type: ignore[attr-defined]  # a DSTD3
    between = rate()
    agent.learn(3, reset_num_timesteps=False)  # the actor, which steps at every second update, drops after the eighth
    meter.advance()
    assert rate() < between < before
    assert meter.flops_train_short == pytest.approx(7 * before + between + 2 * rate())


def test_updates_in_rounds_count_like_updates_one_by_one() -> None:
    topology = TopologyConfig(method="gmp", density=0.2, update_interval=2)
    flops, short, sizes = [], [], []
    for steps in (1, 10):  # 40 updates in rounds of one and of ten, with several prunings in a round
        config = TD3Config(
            net_arch=(8, 8), learning_starts=10, batch_size=4, buffer_size=100, train_freq=steps, gradient_steps=-1
        )
        agent: Any = make_agent("ds_td3", config, topology, FunctionEnv(), seed=0)
        meter = CostMeter(agent)
        before = cost.params_nonzero(meter.trained)
        agent.bind_run_length(50)
        for _ in range(50 // steps):
            agent.learn(steps, reset_num_timesteps=False)
            meter.advance()
        assert agent._n_updates == 40
        flops.append(meter.flops_train)
        short.append(meter.flops_train_short)
        sizes.append((before, cost.params_nonzero(meter.trained)))
    assert sizes[0] == sizes[1]
    assert sizes[0][0] > sizes[0][1]
    assert flops[0] == flops[1]
    assert short[0] == pytest.approx(short[1])
