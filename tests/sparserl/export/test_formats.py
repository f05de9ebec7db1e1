"""Every format says what the policy does: read back, run in another runtime, compiled by a C compiler."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import onnxruntime
import pytest
import safetensors.numpy
import torch
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from support.envs import SpacesOnly
from torch import nn

from sparserl.agents.export_policy import exported_policy
from sparserl.agents.table import AGENTS
from sparserl.errors import ConfigError
from sparserl.export import (
    ExportedPolicy,
    PolicyConvolution,
    PolicyImages,
    PolicyLayer,
    c_header,
    onnx_graph,
    save_tensors,
)
from sparserl.layers import SparseLinear
from sparserl.layers.linear import linear_layers
from sparserl.topology.config import TopologyConfig
from sparserl.topology.structure import SparseTopology

ACTIONS = gym.spaces.Box(np.float32([-1.0, -0.4, 0.0]), np.float32([1.0, 0.4, 3.0]))
READ = gym.spaces.Box(-np.inf, np.inf, (5,), np.float64)
OBSERVATIONS = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
COMPILER = shutil.which("cc")


CHAINED = [algo for algo, spec in AGENTS.items() if not spec.agent.remembered]
"""Agents whose actor is a chain of layers."""


def agent(algo: str = "ds_sac", **options: Any) -> Any:
    topology = {"topology": TopologyConfig(method="set", density=0.3)} if AGENTS[algo].sparse else {}
    buffer = {"buffer_size": 1} if issubclass(AGENTS[algo].agent, OffPolicyAlgorithm) else {}
    arguments = {**buffer, "policy_kwargs": {"net_arch": [16, 12]}, "seed": 0, **topology, **options}
    continuous = gym.spaces.Box in AGENTS[algo].agent.action_spaces
    env = SpacesOnly(READ, ACTIONS if continuous else gym.spaces.Discrete(4))
    return AGENTS[algo].agent("MlpPolicy", env, **arguments)


def policy(algo: str = "ds_sac", **options: Any) -> ExportedPolicy:
    return exported_policy(agent(algo, **options), {"algorithm": algo})


def layer_of(n_in: int, rows: list[list[int]], values: list[float], bias: list[float]) -> PolicyLayer:
    flat = np.array([row * n_in + col for row, cols in enumerate(rows) for col in cols], np.int64)
    sparse = SparseLinear.of(
        SparseTopology(len(rows), n_in, flat), torch.tensor(values), nn.Parameter(torch.tensor(bias))
    )
    return PolicyLayer.of(sparse)


BY_HAND = ExportedPolicy(
    [
        # Of three neurons the middle one has no connection, and the last input is read by nobody.
        layer_of(3, [[0, 1], [], [1]], [2.0, -1.0, 0.5], [0.0, 0.25, -1.0]),
        PolicyLayer.of(nn.Linear(3, 1)),
    ],
    "relu",
    np.float32([-2.0]),
    np.float32([2.0]),
)
BY_HAND.layers[1].values[:] = [1.0, 2.0, 3.0]
BY_HAND.layers[1].bias[:] = [-1.0]


# The same hidden layer, and values -0.5, 0.5 and 0.5 where those of `BY_HAND` say 2.5.
CHOICE = ExportedPolicy([BY_HAND.layers[0], PolicyLayer.of(nn.Linear(3, 3))], "relu", None, None)
CHOICE.layers[1].values[:] = [0, 2, 0, 0, 2, 1, 0, 0, 1]
CHOICE.layers[1].bias[:] = [-1, -1, -0.5]


def test_a_choice_worked_by_hand() -> None:
    assert CHOICE(np.float32([1.0, 4.0, 9.0])) == 1
    assert CHOICE(np.float32([1.0, 0.0, 9.0])) == 0  # hidden 2, 0.25, 0: values -0.5, -0.5, -0.5
    assert (CHOICE.n_in, CHOICE.n_out, CHOICE.ranges) == (3, 3, {})


def test_a_policy_worked_by_hand() -> None:
    # Hidden: relu(2 - 4) = 0, relu(0.25), relu(0.5 * 4 - 1) = 1; out: 0.5 + 3 - 1 = 2.5, squashed, times 2.
    assert BY_HAND(np.float32([1.0, 4.0, 9.0])) == pytest.approx([2 * np.tanh(2.5)])
    assert (BY_HAND.n_in, BY_HAND.n_out, BY_HAND.connections) == (3, 1, 6)


@pytest.mark.parametrize("algo", CHAINED)
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_it_does_what_the_agent_does(algo: str, activation: type[nn.Module]) -> None:
    own = agent(algo, policy_kwargs={"net_arch": [16, 12], "activation_fn": activation})
    for parameter in own.acting.parameters():
        parameter.data *= 3  # so that some actions are at their bounds
    exported = exported_policy(own, {})
    expected, _ = own.predict(OBSERVATIONS.astype(np.float64), deterministic=True)
    np.testing.assert_allclose([exported(row) for row in OBSERVATIONS], expected, atol=1e-5)
    assert (exported.layers[0].row_ptr is not None) == AGENTS[algo].sparse


def test_arrays_are_read_back(tmp_path: Path) -> None:
    own = policy()
    save_tensors(own, tmp_path / "p.safetensors")
    arrays = safetensors.numpy.load_file(tmp_path / "p.safetensors")
    for place, layer in enumerate(own.layers):
        np.testing.assert_array_equal(arrays[f"layer{place}.values"], layer.values)
        if layer.row_ptr is not None:
            np.testing.assert_array_equal(arrays[f"layer{place}.row_ptr"], layer.row_ptr)
            np.testing.assert_array_equal(arrays[f"layer{place}.col"], layer.col)
    with safetensors.safe_open(tmp_path / "p.safetensors", "numpy") as file:
        assert file.metadata() == {
            **{"algorithm": "ds_sac", "activation": "relu", "ending": "squashed"},
            **{"sizes": "5 16 12 3", "format": "sparserl-policy 1"},
        }


def residual(algo: str = "ds_sac") -> Any:
    """An agent with residual blocks, of which nothing is as it began."""
    own = agent(algo, policy_kwargs={"network": "simba", "net_arch": {"pi": [8, 8], "qf": [8]}})
    own.policy.observe(3 + 2 * np.random.default_rng(1).normal(size=(100, 5)))
    for parameter in own.acting.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape)
    return own


@pytest.mark.parametrize("algo", ["ds_sac", "ds_td3", "ds_tqc"])
def test_residual_blocks_do_what_the_agent_does(algo: str) -> None:
    own = residual(algo)
    expected, _ = own.predict(OBSERVATIONS.astype(np.float64), deterministic=True)
    exported = exported_policy(own, {})
    np.testing.assert_allclose([exported(row) for row in OBSERVATIONS], expected, atol=1e-5)


def test_what_stands_around_layers_is_read_back(tmp_path: Path) -> None:
    own = exported_policy(residual(), {})
    save_tensors(own, tmp_path / "p.safetensors")
    arrays = safetensors.numpy.load_file(tmp_path / "p.safetensors")
    for place, layer in enumerate(own.layers):
        assert (f"layer{place}.scale" in arrays) == (layer.norm is not None) == (place in (0, 1, 3, 5))
        if layer.norm is not None:
            np.testing.assert_array_equal(arrays[f"layer{place}.scale"], layer.norm.scale)
            np.testing.assert_array_equal(arrays[f"layer{place}.shift"], layer.norm.shift)
    with safetensors.safe_open(tmp_path / "p.safetensors", "numpy") as file:
        said = file.metadata()
    assert said["norms"] == "0:given 1:1e-06 3:1e-06 5:1e-06"
    assert said["added"] == "none none 1 none 3 none"
    assert said["activated"] == "1 3"


CASES = {"by hand": BY_HAND, "choice": CHOICE, "residual": exported_policy(residual(), {})}


@pytest.mark.parametrize("case", [*CASES, *CHAINED])
def test_onnx_does_the_same_in_its_own_runtime(case: str) -> None:
    own = CASES[case] if case in CASES else policy(case)
    model = onnx_graph(own)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    observations = OBSERVATIONS[:, : own.n_in]
    (actions,) = session.run(None, {"observation": observations})
    np.testing.assert_allclose(actions, [own(row) for row in observations], atol=1e-5)
    sparse = [layer for layer in own.layers if layer.row_ptr is not None]
    assert [
        len(tensor.values.float_data or tensor.values.raw_data) > 0 for tensor in model.graph.sparse_initializer
    ] == [layer.values.size > 0 for layer in sparse]


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
@pytest.mark.parametrize("case", [*CASES, "tanh", *CHAINED])
def test_c_does_the_same_when_it_is_compiled(case: str, tmp_path: Path) -> None:
    tanh = {"policy_kwargs": {"net_arch": [16, 12], "activation_fn": nn.Tanh}}
    own = CASES[case] if case in CASES else policy(**tanh) if case == "tanh" else policy(case)
    header = c_header(own, "walk")
    (tmp_path / "walk.h").write_text(header.text)
    call = "walk(o, a)" if own.ranges else "a[0] = (float)walk(o)"
    (tmp_path / "walk.c").write_text(f'#include "walk.h"\nvoid act(const float *o, float *a) {{ {call}; }}\n')
    library = tmp_path / "walk.so"
    strict = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O2"]
    words = [str(COMPILER), *strict, "-shared", "-fPIC", str(tmp_path / "walk.c"), "-o", str(library), "-lm"]
    subprocess.run(words, check=True, capture_output=True, text=True)
    act = ctypes.CDLL(str(library)).act
    floats = ctypes.POINTER(ctypes.c_float)
    for row in OBSERVATIONS[:, : own.n_in]:
        given, action = np.ascontiguousarray(row), np.zeros(own.n_out if own.ranges else 1, np.float32)
        act(given.ctypes.data_as(floats), action.ctypes.data_as(floats))
        np.testing.assert_allclose(action, own(row), atol=1e-5)


def test_c_takes_the_smallest_indices() -> None:
    header = c_header(policy())
    assert "static const uint8_t policy_col0" in header.text
    own = policy()
    sparse = [layer for layer in own.layers if layer.row_ptr is not None]
    floats = sum(layer.values.size + layer.bias.size for layer in own.layers) + 2 * own.n_out
    indices = sum(layer.values.size + layer.n_out + 1 for layer in sparse)  # a byte each
    assert header.bytes_data == 4 * floats + indices


def test_floats_survive_being_written() -> None:
    values = np.random.default_rng(0).normal(size=2000).astype(np.float32) * np.float32(1e-3)
    own = ExportedPolicy([PolicyLayer(2000, 1, values, np.float32([0]), None, None)], "relu", *np.float32([[-1], [1]]))
    text = c_header(own).text.split("policy_values0[2000] = {")[1].split("}")[0]
    assert np.array_equal(np.float32([float(item.strip().rstrip("f")) for item in text.split(",")]), values)


@pytest.mark.parametrize("name", ["", "9lives", "a b", "a-b", "int"])
def test_a_name_that_c_does_not_take_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="must be a C identifier"):
        c_header(BY_HAND, name)


@pytest.mark.parametrize("name", ["tanhf", "sin", "fmaxl", "isnan", "NAN", "uint8_t"])
def test_a_name_of_the_headers_that_are_included_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^--name {name} is already a name of math.h or stdint.h"):
        c_header(BY_HAND, name)
    assert c_header(BY_HAND, f"policy_{name}").text


def test_other_modules_are_refused() -> None:
    with pytest.raises(ConfigError, match="a ReLU is no linear layer"):
        PolicyLayer.of(nn.ReLU())


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"pip install 'onnx>=1\.17'"):
        onnx_graph(BY_HAND)


# --- images -----------------------------------------------------------------------------------------

SEEING = ["ds_td3", "td3", "ds_sac", "ds_dqn", "dqn", "ds_ppo", "ppo"]


def seeing(algo: str, shape: tuple[int, ...]) -> Any:
    """An agent that sees images, whose features matter to what it does."""
    spec = AGENTS[algo]
    topology = {"topology": TopologyConfig(method="set", density=0.3)} if spec.sparse else {}
    buffer = {"buffer_size": 1} if issubclass(spec.agent, OffPolicyAlgorithm) else {}
    env = SpacesOnly(
        gym.spaces.Box(0, 255, shape, np.uint8),
        ACTIONS if gym.spaces.Box in spec.agent.action_spaces else gym.spaces.Discrete(4),
    )
    own: Any = spec.agent("CnnPolicy", env, seed=0, policy_kwargs={"net_arch": [16, 12]}, **buffer, **topology)
    for name, parameter in own.acting.named_parameters():
        if "bias" in name:
            parameter.data.uniform_(-0.1, 0.1)
        elif "log_std" not in name:
            parameter.data *= 1.5
    return own


@pytest.mark.parametrize("algo", SEEING)
@pytest.mark.parametrize("shape", [(36, 40, 3), (1, 44, 36)])
def test_policies_that_see_images_do_the_same_as_arrays_and_in_onnx(algo: str, shape: tuple[int, ...]) -> None:
    own = seeing(algo, shape)
    images = np.random.default_rng(1).integers(0, 256, size=(6, *shape), dtype=np.uint8)
    images[1], images[2] = 0, 255
    expected, _ = own.predict(images, deterministic=True)
    assert expected.ndim == 1 or len(np.unique(expected, axis=0)) == 6
    exported = exported_policy(own, {})
    assert exported.shape == shape
    np.testing.assert_allclose([exported(image) for image in images], expected, atol=1e-4)
    model = onnx_graph(exported)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (actions,) = session.run(None, {"observation": images})
    np.testing.assert_allclose(actions, expected, atol=1e-4)
    sparse = [layer for layer in exported.all_layers if layer.row_ptr is not None]
    assert len(model.graph.sparse_initializer) == len(sparse)
    assert bool(sparse) == AGENTS[algo].sparse
    weights = {name: layer.weights.numel() for name, layer in linear_layers(own.acting).items()}
    assert exported.connections >= sum(weights.values()) - 12 * 3  # deviations of a Gaussian policy are left out


def test_a_convolution_worked_by_hand() -> None:
    # One channel, patches of 1 x 2 and steps of 2: differences of neighbours, and their sum.
    kernel = layer_of(2, [[0, 1], [0, 1]], [1.0, -1.0, 1.0, 1.0], [0.0, -1.0])
    convolution = PolicyConvolution(kernel, (1, 2), (1, 2))
    x = np.float32([[[5, 2, 1, 4]]])
    assert convolution(x).tolist() == [[[3.0, -3.0]], [[6.0, 4.0]]]
    linear = layer_of(4, [[0, 1, 3]], [1.0, 1.0, 10.0], [0.5])
    images = PolicyImages((1, 4, 1), True, [convolution], linear)
    # Shares of 255 are 1, .4, .2, .8: differences .6 and -.6, which becomes 0; sums less 1, .4 and 0.
    assert images(np.uint8(255 * x.reshape(1, 4, 1) / 5)).tolist() == pytest.approx([0.6 + 0.5])


def test_arrays_of_convolutions_are_read_back(tmp_path: Path) -> None:
    exported = exported_policy(seeing("ds_td3", (36, 36, 3)), {})
    save_tensors(exported, tmp_path / "p.safetensors")
    arrays = safetensors.numpy.load_file(tmp_path / "p.safetensors")
    assert exported.images is not None
    for name, layer in exported.images.layers.items():
        np.testing.assert_array_equal(arrays[f"{name}.values"], layer.values)
        np.testing.assert_array_equal(arrays[f"{name}.col"], layer.col)
    with safetensors.safe_open(tmp_path / "p.safetensors", "numpy") as file:
        said = file.metadata()
    assert (said["image"], said["channels"], said["sizes"]) == ("36 36 3", "last", "512 16 12 3")
    assert [said[f"convolution{place}"] for place in range(3)] == [
        "8 x 8, stride 4 x 4",
        "4 x 4, stride 2 x 2",
        "3 x 3, stride 1 x 1",
    ]


def test_policies_that_see_images_are_not_written_as_c() -> None:
    with pytest.raises(ConfigError, match="a policy that reads images is not written as C; take --format onnx or"):
        c_header(exported_policy(seeing("ds_td3", (36, 36, 3)), {}))
