"""One pass through a network, and its way back: what the losses of an agent stand between.

Losses are arithmetic on arrays that gives a value and its derivative by the network's output: on a batch of a few
hundred numbers, recording them for autograd takes longer than the sparse networks themselves. Sparse networks go
forward and back as steps of compiled code, which wait for each other inside `sparserl.kernels.program.deferred`; others
through autograd, at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from sparserl.agents.networks.heads import HeadEnsembles
from sparserl.agents.replay.batch import FloatArray, Observations
from sparserl.agents.replay.buffer import IntArray
from sparserl.kernels.deferred import Array, computed
from sparserl.kernels.flops import torch_products
from sparserl.kernels.formulas import tanh, through_tanh
from sparserl.kernels.program import run_waiting
from sparserl.kernels.recording import relies_on_items
from sparserl.layers import SparseEnsemble
from sparserl.layers.batch_ensemble import BatchEnsemble

Ensemble = SparseEnsemble | HeadEnsembles | BatchEnsemble
"""Networks behind a method, which run in one call."""


class TracedForward(Protocol):
    """A pass through a network."""

    outputs: FloatArray
    """(networks, B, n_out) what it gives."""

    def backward(self, gradient: FloatArray) -> None:
        """Sets `grad` of the network's parameters, given the derivative by `outputs`; what was there is replaced."""

    def input_gradient(self, gradient: FloatArray) -> FloatArray:
        """(B, width) derivative by the last input; the parameters' `grad` stays as it is."""


def traced_forward(network: nn.Module, method: str, observations: Observations, *more: FloatArray) -> TracedForward:
    """Evaluates a method of an actor or critic.

    Args:
        network: Of Stable-Baselines3's shape.
        method: `"forward"` or `"q1_forward"`.
        observations: As `TransitionBatch` has them.
        more: (B, width) actions, if it takes them.
    """
    ensemble, inputs = _fused(network, method), (observations, *more)
    if ensemble is None:
        run_waiting()
        return AutogradForward(network, method, *map(computed, inputs))
    if isinstance(ensemble, HeadEnsembles):
        run_waiting()
        return TasksForward(ensemble, *map(computed, inputs))
    return FusedForward(ensemble, *inputs)  # type: ignore[arg-type]  # as above


def evaluate(network: nn.Module, method: str, observations: Observations, *more: FloatArray) -> FloatArray:
    """(networks, B, n_out) outputs of a method of a network, with no way back; arguments as `traced_forward`."""
    ensemble, inputs = _fused(network, method), (observations, *more)
    if ensemble is None:
        run_waiting()
        with torch.no_grad(), torch_products(network, (method, len(more), rows_of(observations))):
            return _arrays(getattr(network, method)(*map(as_tensors, map(computed, inputs))))
    if isinstance(ensemble, HeadEnsembles):
        run_waiting()
        return _evaluated_by_task(ensemble, [computed(given) for given in inputs])
    return _evaluated(ensemble, inputs)  # type: ignore[arg-type]  # as above


def rows_of(given: Observations) -> int:
    """Samples of a batch."""
    return len(next(iter(given.values())) if isinstance(given, dict) else given)


def as_tensors(given: Observations) -> Any:
    """The same as tensors, on the same memory."""
    return (
        {key: torch.from_numpy(part) for key, part in given.items()}
        if isinstance(given, dict)
        else torch.from_numpy(given)
    )


def differentiated(loss: Callable[[torch.Tensor], torch.Tensor], outputs: FloatArray) -> tuple[float, FloatArray]:
    """Value of a loss written in torch and its derivative by `outputs`, for when that is not worth writing down.

    Example:
        >>> differentiated(lambda q: q.square().sum(), np.float32([1.0, -2.0]))
        (5.0, array([ 2., -4.], dtype=float32))
    """
    leaf = torch.from_numpy(np.asarray(outputs)).requires_grad_()
    value = loss(leaf)
    value.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    assert leaf.grad is not None
    return value.item(), leaf.grad.numpy()


def _fused(network: nn.Module, method: str) -> Ensemble | None:
    """The networks behind a method, if they run in one call (for each task)."""
    ensembles: dict[str, Ensemble] = vars(network).get("ensembles", {})
    ensemble = ensembles.get(method)
    one = ensemble.by_task[0] if isinstance(ensemble, HeadEnsembles) else ensemble
    if one is not None:
        one.refresh()
    joined = None if one is None else one.joined
    if joined is not None:
        relies_on_items(vars(network), ["ensembles"])
        relies_on_items(ensembles, [method])
    return None if joined is None else ensemble


def _evaluated(ensemble: SparseEnsemble | BatchEnsemble, inputs: Sequence[FloatArray]) -> FloatArray:
    assert ensemble.joined is not None
    return _activated(ensemble, ensemble.joined.evaluate(inputs))


def _evaluated_by_task(ensembles: HeadEnsembles, inputs: Sequence[FloatArray]) -> FloatArray:
    read, rows_by_task = ensembles.split(inputs)
    if len(rows_by_task) == 1:
        return computed(_evaluated(ensembles.by_task[rows_by_task[0][0]], read))  # type: ignore[no-any-return]
    trunk, heads = ensembles.shared.parts(rows_by_task)
    hidden = _after_hidden(computed(trunk.evaluate(read)), ensembles.shared.activation)
    parts = [(number, rows, head.evaluate([hidden[number, rows]])) for number, rows, head in heads]
    return _activated(ensembles.by_task[0], _in_rows(parts, hidden.shape))


def _after_hidden(sums: FloatArray, activation: str) -> FloatArray:
    """What a hidden layer gives, of the sums of its inputs."""
    return computed(tanh(sums)) if activation == "tanh" else np.maximum(sums, np.float32(0))


def _before_hidden(gradient: FloatArray, after: FloatArray, activation: str) -> FloatArray:
    """Derivative by these sums, given that by what the layer gave."""
    return computed(through_tanh(gradient, after)) if activation == "tanh" else gradient * (after > 0)


def _in_rows(parts: Sequence[tuple[int, IntArray, Array]], shape: Sequence[int]) -> FloatArray:
    """Puts (1, rows, width) parts, or (rows, width), together: each at its network and its rows of the batch.

    Args:
        parts: Network, rows and numbers of each.
        shape: Of something with as many networks and samples.
    """
    whole = np.empty((*shape[:2], parts[0][2].shape[-1]), np.float32)
    for number, rows, part in parts:
        whole[number, rows] = computed(part)
    return whole


def _activated(ensemble: SparseEnsemble | BatchEnsemble, y: FloatArray) -> FloatArray:
    if ensemble.output_activation != "tanh":
        return y
    activated: FloatArray = tanh(y)
    return activated


def _before_activation(
    ensemble: SparseEnsemble | BatchEnsemble, gradient: FloatArray, outputs: FloatArray
) -> FloatArray:
    """Derivative by what an output activation reads, given that by `outputs`, which it gave."""
    if ensemble.output_activation != "tanh":
        return gradient
    before: FloatArray = through_tanh(gradient, outputs)
    return before


def _arrays(given: Any) -> FloatArray:
    tensors = (given,) if torch.is_tensor(given) else given
    return np.stack([tensor.detach().numpy() for tensor in tensors])


class FusedForward:
    """A pass through sparse networks in one kernel call.

    Args:
        ensemble: The networks, joined.
        inputs: (B, width) arrays that together are the networks' input.

    Attributes:
        outputs: As in `TracedForward`.
    """

    def __init__(self, ensemble: SparseEnsemble | BatchEnsemble, *inputs: FloatArray):
        assert ensemble.joined is not None
        self._ensemble, self._last = ensemble, inputs[-1].shape[1]
        self._pass: Any = ensemble.joined.run(inputs)
        self.outputs = _activated(ensemble, self._pass.y)

    def backward(self, gradient: FloatArray) -> None:
        self._pass.backward(_before_activation(self._ensemble, gradient, self.outputs))

    def input_gradient(self, gradient: FloatArray) -> FloatArray:
        before = _before_activation(self._ensemble, gradient, self.outputs)
        by_input: FloatArray = self._pass.backward_to_input(before, self._last)
        return by_input


class TasksForward:
    """A pass through sparse networks with a head for each task.

    A batch of one task goes through trunk and head in one kernel call; one of several through the trunk in one, and its
    rows through the heads of their tasks.

    Args:
        ensembles: The networks.
        inputs: (B, width) arrays: observations that end with a task id, then what else is read.

    Attributes:
        outputs: As in `TracedForward`.
    """

    def __init__(self, ensembles: HeadEnsembles, *inputs: FloatArray):
        self._parameters, self._ensemble = ensembles.parameters, ensembles.by_task[0]
        read, rows_by_task = ensembles.split(inputs)
        self._alone: FusedForward | None = None
        if len(rows_by_task) == 1:
            self._alone = FusedForward(ensembles.by_task[rows_by_task[0][0]], *read)
            self.outputs = computed(self._alone.outputs)
            return
        self._last = inputs[-1].shape[1]
        trunk, heads = ensembles.shared.parts(rows_by_task)
        self._trunk = trunk.run(read)
        self._activation = ensembles.shared.activation
        self._hidden = _after_hidden(computed(self._trunk.y), self._activation)
        self._heads = [(number, rows, head.run([self._hidden[number, rows]])) for number, rows, head in heads]
        parts = [(number, rows, head.y) for number, rows, head in self._heads]
        self.outputs = _activated(self._ensemble, _in_rows(parts, self._hidden.shape))

    def backward(self, gradient: FloatArray) -> None:
        # Heads of tasks that are not in the batch have no `grad`.
        for parameter in self._parameters:
            parameter.grad = None
        if self._alone is not None:
            self._alone.backward(computed(gradient))
        else:
            self._trunk.backward(self._by_trunk(gradient, learns=True))

    def input_gradient(self, gradient: FloatArray) -> FloatArray:
        if self._alone is not None:
            alone: FloatArray = computed(self._alone.input_gradient(computed(gradient)))
            return alone
        by_trunk = self._by_trunk(gradient, learns=False)
        whole: FloatArray = computed(self._trunk.backward_to_input(by_trunk, self._last))
        return whole

    def _by_trunk(self, gradient: FloatArray, *, learns: bool) -> FloatArray:
        """(networks, B, n) derivative by what the trunk gives, and if heads learn `grad` of their parameters."""
        by_output = _before_activation(self._ensemble, computed(gradient), self.outputs)
        parts: list[tuple[int, IntArray, Any]] = []
        for number, rows, head in self._heads:
            of_rows = by_output[number, rows][None]
            by_read = head.backward(of_rows, inputs=True) if learns else head.backward_to_input(of_rows)
            parts.append((number, rows, by_read))
        return _before_hidden(_in_rows(parts, self._hidden.shape), self._hidden, self._activation)


class AutogradForward:
    """A pass through any module.

    Args:
        module: The module.
        method: Of it, which gives one tensor or several.
        inputs: Its arguments.

    Attributes:
        outputs: As in `TracedForward`.
    """

    def __init__(self, module: nn.Module, method: str, *inputs: Observations):
        self._module, self._about = module, (method, rows_of(inputs[0]))
        tensors = [as_tensors(given) for given in inputs]
        self._last = tensors[-1]
        if torch.is_tensor(self._last):
            self._last.requires_grad_()
        with torch_products(module, (*self._about, "forward")):
            given: Any = getattr(module, method)(*tensors)
        self._given = (given,) if torch.is_tensor(given) else tuple(given)
        self.outputs = _arrays(self._given)

    def backward(self, gradient: FloatArray) -> None:
        self._module.zero_grad()
        by_outputs = tuple(torch.from_numpy(np.asarray(gradient)))
        learned = [parameter for parameter in self._module.parameters() if parameter.requires_grad]
        with torch_products(self._module, (*self._about, "back")):
            torch.autograd.backward(self._given, by_outputs, inputs=learned)  # and not toward the last input

    def input_gradient(self, gradient: FloatArray) -> FloatArray:
        given = tuple(torch.from_numpy(np.asarray(gradient)))
        with torch_products(self._module, (*self._about, "to input")):
            (toward,) = torch.autograd.grad(self._given, self._last, given)
        by_input: FloatArray = toward.numpy()
        return by_input
