"""Classifiers with convolutions: what methods, topologies and resuming make of them, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cifar_files import write_cifar_10
from support.tasks import IMAGE, blobs, pictures
from support.trees import assert_equal_trees

from sparserl.cli import main
from sparserl.continual.strategies import STRATEGIES, MethodOptions, make_strategy, methods_of
from sparserl.continual.strategies.memory import AGEMOptions, ReplayOptions
from sparserl.continual.strategies.penalty import EWCOptions, L2Options, MASOptions, OnlineEWCOptions, SIOptions
from sparserl.continual.strategies.strategy import Strategy
from sparserl.continual.supervised.connections import DENSE, layer_shapes, patch_bytes
from sparserl.continual.supervised.fit_learner import FitLearner
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import FitLearnerConfig, LearnerConfig
from sparserl.continual.supervised.runner import TaskEnded, run_sequence
from sparserl.errors import ConfigError, TopologyError
from sparserl.experiment.continual_config import ContinualConfig
from sparserl.layers.convolution import Convolution
from sparserl.layers.sparse_cnn import SparseCNN
from sparserl.recording import checkpoint
from sparserl.topology.config import TopologyConfig

OPTIONS = MethodOptions(
    l2=L2Options(strength=0.1),
    ewc=EWCOptions(strength=1.0, fisher_samples=4),
    online_ewc=OnlineEWCOptions(strength=1.0, gamma=0.5, fisher_samples=4),
    si=SIOptions(strength=0.1),
    mas=MASOptions(strength=0.01, samples=4),
    replay=ReplayOptions(samples=20),
    agem=AGEMOptions(samples_per_task=9, batch_size=12),
)
CONVOLUTIONS: dict[str, Any] = {"convolutions": ((6, 3), (8, 2, 1)), "pooling": (1, 2), "hidden": (10,)}
CONFIG = LearnerConfig(**CONVOLUTIONS, learning_rate=0.02, epochs=3, batch_size=16)
SPARSE = TopologyConfig("static", 0.5)
METHODS = [
    name
    for name, spec in methods_of("classifier").items()
    if spec.strategy.has_network and spec.strategy.takes_convolutions
]


def make(method: str = "naive", topology: TopologyConfig = SPARSE, **changes: Any) -> SupervisedLearner:
    strategy, config = make_strategy(method, "classifier", OPTIONS), dataclasses.replace(CONFIG, **changes)
    return SupervisedLearner(pictures("task"), strategy, config, topology, seed=0)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_learns_and_goes_on_as_if_never_interrupted(method: str, tmp_path: Path) -> None:
    whole, saved, matrix = make(method, epochs=8), [], []
    for number, event in enumerate(run_sequence(whole)):
        if isinstance(event, TaskEnded):
            matrix.append(whole.accuracies())
        if (number == 35 and len(matrix) == 1) or (isinstance(event, TaskEnded) and len(matrix) == 1):
            saved.append(tmp_path / str(number))
            checkpoint.save(saved[-1], whole.state_dict())
    assert isinstance(whole.network, SparseCNN)
    assert matrix[0][0] > 0.9
    assert len(saved) == 2
    for path in saved:
        resumed = make(method, epochs=8)
        resumed.load_state_dict(checkpoint.load(path))
        for _ in run_sequence(resumed):
            pass
        assert_equal_trees(resumed.state_dict(), whole.state_dict())
        assert resumed.accuracies() == matrix[-1]


def test_those_that_do_not_are_refused() -> None:
    refused = {name for name, spec in STRATEGIES.items() if not spec.strategy.takes_convolutions}
    assert refused == {"spacenet", "static_sparse", "afaf", "wsn", "nispa"}
    for method in refused:
        with pytest.raises(
            ConfigError, match=f"^method {method} shares out neurons or connections .*: use --method packnet"
        ):
            ContinualConfig(method=method, learner=CONFIG)


@pytest.mark.parametrize("method", ["set", "rigl", "gmp", "chts"])
def test_connections_of_kernels_move_and_go_on_as_if_never_interrupted(method: str) -> None:
    topology = TopologyConfig(method, 0.5, output_layer="sparse", update_interval=2)
    learners = [make("replay", topology) for _ in range(2)]
    whole, resumed = learners
    assert whole.clock is not None
    first = {name: layer.topology for name, layer in whole.sparse_layers.items()}
    steps = list(whole.train())
    assert list(first) == ["network.0", "network.1", "network.2", "network.3"]
    assert all(first[name] is not layer.topology for name, layer in whole.sparse_layers.items())
    for number, _ in enumerate(resumed.train(), 1):
        if number == len(steps) // 2:
            break
    again = make("replay", topology)
    again.load_state_dict(copy.deepcopy(resumed.state_dict()))
    list(again.train())
    assert_equal_trees(again.state_dict(), whole.state_dict())


def test_shapes_and_memory_by_hand() -> None:
    sequence = pictures()
    # 6 x 5 pixels of 2 channels: 4 x 3 places, then 3 x 2 of which pooling leaves 1 x 1.
    assert layer_shapes(CONFIG, sequence, [6]) == [(6, 18), (8, 24), (10, 8), (6, 10)]
    assert patch_bytes(CONFIG, sequence) == 2 * 4 * 16 * (18 * 12 + 24 * 6)
    assert layer_shapes(LearnerConfig(hidden=(3,)), sequence, [6]) == [(3, 60), (6, 3)]
    assert patch_bytes(LearnerConfig(), sequence) == 0.0
    assert make().widest == 18 * 12


@pytest.mark.parametrize("density", [0.5, 1.0])
def test_operations_by_hand(density: float) -> None:
    """A product forward, one for the gradient of weights and, but in the first layer, one for that of inputs."""
    topology = TopologyConfig("static", density, output_layer="sparse") if density < 1.0 else DENSE
    config = FitLearnerConfig(**CONVOLUTIONS, epochs=1, batch_size=8)
    sequence = pictures(n_tasks=1)
    learner = FitLearner(sequence, config, topology, seed=0)
    next(learner.train())
    places = [12, 6, 1, 1]
    sizes = [one.used for one in learner.usage()]
    products = [2 * 8 * size * at for size, at in zip(sizes, places, strict=True)]
    assert learner.flops.total == 3 * sum(products) - products[0]


def test_numbers_kept_are_those_of_the_network() -> None:
    learner = make()
    biases = 6 + 8 + 10 + 6
    shapes = [layer.nnz for layer in learner.sparse_layers.values()]
    dense_output = 6 * 10
    indices = sum(layer.row_ptr.numel() + layer.col.numel() for layer in learner.sparse_layers.values())
    assert learner.numbers_kept() == sum(shapes) + dense_output + biases + indices


def test_options_are_those_of_the_layers() -> None:
    assert CONFIG.convolution_layers == [Convolution(6, 3, 1, 1), Convolution(8, 2, 1, 2)]
    same = dataclasses.replace(CONFIG, convolutions=((6, 3, 2), (8, 2)), pooling=(3,))
    assert same.convolution_layers == [Convolution(6, 3, 2, 3), Convolution(8, 2, 1, 3)]
    assert dataclasses.replace(CONFIG, pooling=()).convolution_layers[1].pooling == 1
    assert LearnerConfig().convolution_layers == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"convolutions": ((6,),), "pooling": ()}, r"has \[channels, side of a patch, stride\] of each, .* got \[6\]"),
        ({"convolutions": ((6, 0),), "pooling": ()}, r"learner.convolutions must be at least 1, got \(\(6, 0\),\)"),
        ({"pooling": (2, 2, 2)}, "pooling has one number, or one for each of 2 convolutions, got"),
        ({"convolutions": (), "pooling": (2,)}, "pooling .* follows convolutions: set learner.convolutions"),
        ({"activation": "k_winners"}, "k_winners ranks the neurons of a layer, .*: use relu"),
    ],
)
def test_options_that_say_nothing(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        dataclasses.replace(CONFIG, **changes)


def test_what_convolutions_do_not_go_with() -> None:
    with pytest.raises(ConfigError, match="regularizer variational_dropout is for networks without"):
        FitLearnerConfig(**CONVOLUTIONS, regularizer="variational_dropout", epochs=30)
    with pytest.raises(ConfigError, match="read pictures, and samples of blobs are rows of numbers: leave it out"):
        SupervisedLearner(blobs("task"), Strategy(), CONFIG, SPARSE, seed=0)
    with pytest.raises(ConfigError, match="patches of 7 x 7 in convolution 1 do not fit into 6 x 5"):
        make(convolutions=((6, 7),), pooling=())
    with pytest.raises(TopologyError, match="initial_topology snip is for networks that read vectors; use random"):
        make(topology=TopologyConfig("snip", 0.5))


def test_pictures_have_the_order_of_features() -> None:
    sequence = pictures()
    assert sequence.image == IMAGE
    assert sequence.tasks[0].train.take(np.arange(1))[0].shape == (1, math.prod(IMAGE))


def test_made_pictures_are_learned_by_the_preset(tmp_path: Path) -> None:
    """With a smaller network of the same kind: two convolutions, pooling, and a sparse layer."""
    write_cifar_10(tmp_path / "cifar10", [*range(10)] * 8, [*range(10)])
    small = "--learner.convolutions [[6,3],[8,3,2]] --learner.pooling 2 1 --learner.hidden 16 --topology.density 0.5"
    words = f"continual --sequence split_cifar10 --scenario task --method replay {small} --learner.epochs 8"
    words += " --learner.batch-size 4"
    folder = tmp_path / "run"
    assert main([*words.split(), "--data-dir", str(tmp_path), "--run-dir", str(folder), "--no-progress"]) == 0
    result = json.loads((folder / "result.json").read_text())
    assert result["acc"] > 0.8
    assert [*result["layers"]] == ["network.0", "network.1", "network.2", "network.3"]
    assert result["layers"]["network.1"]["size"] == 8 * 6 * 9
