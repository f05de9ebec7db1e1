"""Degree, strength and attribution of inputs, against numbers worked out by hand and the masked dense twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.layers import random_layer, sparse
from torch import nn

from sparserl.errors import ConfigError
from sparserl.layers import SparseMLP
from sparserl.layers.convert import dense_copy, to_dense
from sparserl.layers.convolution import Convolution
from sparserl.layers.sparse_cnn import SparseCNN
from sparserl.metrics.inputs import SAMPLES_AT_A_TIME, input_attribution, input_degree, input_strength, input_use

# Hidden x inputs [.5 -1 0; 0 2 1], outputs x hidden [1 0; -1 1].
FIRST, SECOND = ((2, 3, [0, 1, 4, 5], [0.5, -1.0, 2.0, 1.0]), (2, 2, [0, 2, 3], [1.0, -1.0, 1.0]))
SAMPLES = torch.tensor([[1.0, 1.0, 1.0], [-1.0, 1.0, 0.0]])


def network(activation: str = "relu") -> SparseMLP:
    return SparseMLP([sparse(*FIRST), sparse(*SECOND)], activation)


def test_degree_and_strength_worked_by_hand() -> None:
    layer = sparse(*FIRST)
    assert input_degree(layer).tolist() == [1, 2, 1]
    assert input_strength(layer).tolist() == [0.5, 3.0, 1.0]


def test_strength_of_quick_selection() -> None:
    layer = sparse(2, 3, [0, 2, 4, 5], [0.4, -0.2, 0.1, 0.3])
    assert np.argsort(-input_strength(layer)).tolist() == [2, 0, 1]
    np.testing.assert_allclose(input_strength(layer), [0.4, 0.1, 0.5])


def test_a_dense_layer_is_measured_as_the_sparse_one_is() -> None:
    layer = random_layer(0)
    np.testing.assert_allclose(input_strength(to_dense(layer)), input_strength(layer), rtol=1e-6)
    assert input_degree(nn.Linear(3, 5)).tolist() == [5, 5, 5]


def test_an_input_without_connections_counts_for_nothing() -> None:
    layer = sparse(2, 4, [0, 5], [1.0, -2.0])
    assert input_degree(layer).tolist() == [1, 1, 0, 0]
    assert input_strength(layer).tolist() == [1.0, 2.0, 0.0, 0.0]


def test_attribution_worked_by_hand() -> None:
    """The first sample passes hidden neuron 1 alone, the second both -1.5 and 2, so again neuron 1 alone."""
    assert input_attribution(network(), SAMPLES).tolist() == [0.0, 2.0, 1.0]


def test_what_a_kernel_reads_is_summed_over_its_places() -> None:
    """Of patches of 2, at places 0 and 1 of three columns: of weights 2 (first column) and -3 (second)."""
    kernel = sparse(1, 2 * 2, [0, 1], [2.0, -3.0])
    net = SparseCNN([kernel, nn.Linear(2, 1)], (1, 2, 3), [Convolution(1, 2)])
    found = input_use("network", [*"abcdef"], [net], torch.ones(2, 6))
    assert found.degree.tolist() == [1, 2, 1, 0, 0, 0]
    assert found.strength.tolist() == [2.0, 2.0 + 3.0, 3.0, 0.0, 0.0, 0.0]
    assert found.attribution[3:].tolist() == [0.0, 0.0, 0.0]


def test_attribution_is_that_of_the_dense_twin_and_leaves_nothing_behind() -> None:
    twin = dense_copy(network("tanh"))
    mlp = network("tanh")
    found = input_attribution(mlp, SAMPLES)
    jacobians = torch.func.vmap(torch.func.jacrev(twin))(SAMPLES)
    np.testing.assert_allclose(found, jacobians.detach().abs().sum(dim=1).mean(dim=0), rtol=1e-5)
    assert all(parameter.grad is None for parameter in mlp.parameters())
    assert not SAMPLES.requires_grad


def test_many_samples_are_taken_in_parts() -> None:
    twice = SAMPLES.repeat(SAMPLES_AT_A_TIME, 1)
    np.testing.assert_allclose(input_attribution(network(), twice), [0.0, 2.0, 1.0])
    with torch.no_grad():
        np.testing.assert_allclose(input_attribution(network(), twice[:3]), [0.0, 2.0, 1.0])


def test_no_sample_and_no_linear_layer_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one sample"):
        input_attribution(network(), SAMPLES[:0])
    with pytest.raises(ConfigError, match="a ReLU is no linear layer"):
        input_strength(nn.ReLU())
