"""Growth by gradient: what is captured, when, and what grows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle.dense_topology import gradient_growth, mask_of, matrix_of
from support.layers import one_layer, random_layer

from sparserl.errors import TopologyError
from sparserl.kernels import use_backend
from sparserl.layers import SparseLinear
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.rewire import RewireRule
from sparserl.topology.structure import SparseTopology


def test_gradients_are_captured_only_where_an_event_needs_them() -> None:
    layers = {"a.0": random_layer(0), "b.0": random_layer(1)}
    groups: dict[str, dict[str, SparseLinear]] = {"a": {"a.0": layers["a.0"]}, "b": {"b.0": layers["b.0"]}}
    rule = RewireRule("weight_magnitude", "gradient", 0.3, update_interval=3, last_update=7, shrink_at_end=True)
    evolver = TopologyEvolver(groups, rule, seed=0)
    armed: list[tuple[bool, bool]] = []
    for update in range(1, 13):
        evolver.begin_update(update)
        assert all(layer.activation_pairs == [] for layer in layers.values())
        armed.append((layers["a.0"].capture, layers["b.0"].capture))
        for group, layer in zip(groups, layers.values(), strict=True):
            if layer.capture:
                layer.activation_pairs.append((torch.ones(7, 2), torch.ones(6, 2)))
            if group == "a" or update % 2 == 0:
                events = evolver.end_update(group)
                assert not (events and (layer.capture or layer.activation_pairs))
    # a is due at 1, 4, 7 and shrinks at 10 without gradients; b steps at even updates: due at 1, 4, 7, then it is over.
    a, b = zip(*armed, strict=True)
    assert [update for update, on in enumerate(a, 1) if on] == [1, 4, 7]
    assert [update for update, on in enumerate(b, 1) if on] == [1, 2, 4, 7]
    kinds = [(event.update, event.layer, event.kind) for event in evolver.events[2:]]
    assert kinds == [
        (1, "a.0", "rewire"),
        (2, "b.0", "rewire"),
        (4, "a.0", "rewire"),
        (4, "b.0", "rewire"),
        (7, "a.0", "rewire"),
        (8, "b.0", "shrink"),
        (10, "a.0", "shrink"),
    ]


def test_random_growth_captures_nothing() -> None:
    layer = random_layer(0)
    evolver = one_layer(layer, RewireRule("weight_magnitude", "random", 0.3))
    evolver.begin_update(1)
    assert not layer.capture


def test_growth_by_gradient_without_a_backward_pass_is_refused() -> None:
    evolver = one_layer(random_layer(0), RewireRule("weight_magnitude", "gradient", 0.3))
    evolver.begin_update(1)
    with pytest.raises(TopologyError, match="needs the update's activations"):
        evolver.end_update("net")


def test_growth_follows_the_dense_gradient_of_the_update() -> None:
    """One RigL update of a layer against autograd on its dense twin, the loss made of two passes."""
    layer = random_layer(4)
    evolver = one_layer(layer, RewireRule("weight_magnitude", "gradient", 0.5, keep_regrown=True))
    generator = torch.Generator().manual_seed(1)
    xs = [torch.randn(9, 7, generator=generator) for _ in range(2)]
    old = layer.topology
    dense = torch.from_numpy(matrix_of(old, layer.values.detach().numpy())).requires_grad_()
    sum((x @ dense.T).pow(3).sum() for x in xs).backward()  # type: ignore[union-attr]
    assert dense.grad is not None

    evolver.begin_update(1)
    with use_backend("reference"):
        sum(layer(x).pow(3).sum() for x in xs).backward()
    magnitude = np.abs(layer.values.detach().numpy())
    smallest = sorted(range(20), key=lambda slot: (magnitude[slot], slot))[:10]
    evolver.end_update("net")
    kept = mask_of(SparseTopology(6, 7, np.delete(old.flat, smallest)))
    expected = np.flatnonzero(kept).tolist() + gradient_growth(dense.grad.numpy(), kept, 10)
    assert layer.topology.flat.tolist() == sorted(expected)
    # Nothing is captured between events.
    evolver.begin_update(2)
    with use_backend("reference"):
        layer(xs[0]).sum().backward()
    assert layer.activation_pairs == []
