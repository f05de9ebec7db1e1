"""Linear layers that run in one kernel call, as one autograd node.

Decides which layers are joined and which gradients are formed. Independent of how products are computed
(`sparserl.kernels`) and which connections exist (`sparserl.topology`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sparserl.errors import TopologyError
from sparserl.kernels import (
    ActivationPair,
    After,
    CsrIndex,
    GradientRequest,
    Linear,
    Networks,
    active_backend,
    program,
    tables,
)
from sparserl.kernels.deferred import Array, computed
from sparserl.kernels.flops import count
from sparserl.kernels.recording import is_recorded, not_again, relies_on_gradients, relies_on_items, relies_on_tensors
from sparserl.layers.activations import Function, identity
from sparserl.layers.linear import Layer, linear
from sparserl.layers.norms import BeforeLayer, described, tensors_of
from sparserl.layers.watched import is_watched, watched

JOINED_UP_TO = 128
"""Neurons on the narrow side of a dense layer up to which it is joined with its sparse neighbours: beyond, the dense
product is faster by more than it costs to leave the kernel."""


class FusedLayers:
    """Chains of layers, of equal widths, that read the same input; with a ReLU between them unless `after` says else.

    Args:
        chains: The layers of each network.
        reading: What makes activations of the outputs of the last layer, where growth compares activations.
        norms: What stands before each layer of each network, or None; nothing anywhere if there are none.
        after: What follows each layer of a network; a ReLU each but the last if None.

    Attributes:
        layers: All of them.
        sparse: Indices of the sparse ones among them.
        places: Of each layer, that of its first parameter among those of all: weights and bias, then scale and shift of
            its norm, if it has one.
        owners: Index of the layer of each parameter.
    """

    def __init__(
        self,
        chains: Sequence[Sequence[Layer]],
        reading: Function = identity,
        *,
        norms: Sequence[Sequence[BeforeLayer | None]] = (),
        after: Sequence[After] | None = None,
    ):
        self.chains, self.reading, self.after = chains, reading, after
        self.layers: list[Any] = [layer for chain in chains for layer in chain]
        self.norms = [norm for chain in norms for norm in chain] or [None] * len(self.layers)
        counts = [2 if norm is None else 4 for norm in self.norms]
        self.places = [sum(counts[:number]) for number in range(len(counts))]
        self.owners = [number for number, count in enumerate(counts) for _ in range(count)]
        self.sparse = [number for number, layer in enumerate(self.layers) if linear(layer).is_sparse]
        self._dense = [number for number in range(len(self.layers)) if number not in self.sparse]
        self._networks: Networks | None = None
        self._key: list[Any] = []
        self._shaped: tuple[Any, list[bool], list[torch.Tensor | None]] = (None, [], [])
        self._seen: tuple[int | None, list[torch.Tensor | None], Networks] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # What is prepared holds addresses, which mean nothing in a copy.
        return {**vars(self), "_networks": None, "_key": [], "_shaped": (None, [], []), "_seen": None}

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n_in) to (networks, B, n_out), recorded by autograd.

        Raises:
            KernelUnavailable: If the pass is exported or traced.
            TopologyError: If `DistributedDataParallel` would not average what the layers learn.
        """
        return (
            watched([self.layers[at] for at in self.sparse], self._recorded, x) if is_watched() else self._recorded(x)
        )

    def _recorded(self, x: torch.Tensor) -> torch.Tensor:
        parameters = self._parameters()
        trained = any(parameter is not None and parameter.requires_grad for parameter in parameters)
        if not torch.is_grad_enabled() or not (x.requires_grad or trained):
            return self._evaluated(parameters, x)
        y: torch.Tensor = _Node.apply(x, self, *parameters)  # type: ignore[no-untyped-call]
        return y

    def evaluate(self, inputs: Sequence[Array]) -> Array:
        """(B, width) parts of the input to (networks, B, n_out), with no way back whatever requires a gradient."""
        _, networks = self._now()
        count(networks.forward_flops(inputs[0].shape[0]))
        return active_backend().forward(networks, inputs, keep=False)[0]

    def run(self, inputs: Sequence[Array]) -> FusedPass:
        """(B, width) parts to a pass that autograd does not record; it has a way back of its own."""
        parameters, networks = self._now()
        return FusedPass(self, parameters, networks, inputs)

    def _now(self) -> tuple[list[torch.Tensor | None], Networks]:
        """Parameters and networks as they are; not looked at again while only steps wait."""
        stretch = program.stretch()
        if stretch is None or self._seen is None or self._seen[0] != stretch or tables.CHECKED:
            parameters = self._parameters()
            networks = self._prepared(parameters)
            self._seen = stretch, parameters, networks
            if is_recorded():
                relies_on_tensors(parameter for parameter in parameters if parameter is not None)
                for layer in self.layers:
                    relies_on_items(layer._parameters, layer._parameters)
                    relies_on_items(vars(layer), {"connections", "capture"} & vars(layer).keys())
        return self._seen[1:]

    def shaped(self, gradients: Sequence[torch.Tensor], needs: Sequence[bool]) -> list[torch.Tensor | None]:
        """Gradients in the shape of their parameters, None where not needed; the same objects for the same memory."""
        if self._shaped[0] is not gradients or self._shaped[1] != needs:
            self._shaped = gradients, list(needs), as_parameters(gradients, self._parameters(), needs)
        return self._shaped[2]

    def _evaluated(self, parameters: list[torch.Tensor | None], x: torch.Tensor) -> torch.Tensor:
        networks = self._prepared(parameters)
        count(networks.forward_flops(x.shape[0]))
        y = active_backend().forward(networks, [x], keep=False)[0]
        return torch.from_numpy(computed(y))

    def _parameters(self) -> list[torch.Tensor | None]:
        given: list[torch.Tensor | None] = []
        for layer, norm in zip(self.layers, self.norms, strict=True):
            named = layer._parameters  # `layer.values` takes ten times as long
            given += [named["weight" if "weight" in named else "values"], named.get("bias")]
            if norm is not None:
                given += tensors_of(norm, linear(layer).shape[1])
        return given

    def _prepared(self, parameters: list[torch.Tensor | None]) -> Networks:
        """The networks as they are now; built anew after a topology event, or when a tensor was replaced."""
        given = [parameter for parameter in parameters if parameter is not None]
        key = tables.key(given) + [id(self.layers[number].index) for number in self.sparse]
        key += [parameters[self.places[number]].stride() for number in self._dense]  # type: ignore[union-attr]  # is there
        if self._networks is None or key != self._key:
            linears = []
            for number, layer in enumerate(self.layers):
                values, bias, *of_norm = parameters[self.places[number] :][: 2 if self.norms[number] is None else 4]
                assert values is not None
                norm = self.norms[number]
                index = layer.index if number in self.sparse else CsrIndex.full(*values.shape)
                if not values.is_contiguous():
                    raise ValueError(
                        f"a dense layer beside sparse ones needs contiguous weights, got {values.stride()}"
                    )
                described_norm = None if norm is None else described(norm, of_norm)
                bias = None if bias is None else bias.detach()
                linears.append(Linear(index, values.detach().view(-1), bias, described_norm))
            depth = len(self.chains[0])
            chains = [linears[at : at + depth] for at in range(0, len(linears), depth)]
            self._networks = Networks(chains, self._networks, self.after)
            self._key = key
        if tables.CHECKED:
            tables.check("layers", [tables.key(self._networks.tensors())], [tables.key(given)])
        return self._networks


class FusedPass:
    """One pass through fused layers, and its way back.

    Attributes:
        y: (networks, B, n_out) output; None once it is handed out.
    """

    def __init__(
        self, fused: FusedLayers, parameters: Sequence[torch.Tensor | None], networks: Networks, inputs: Sequence[Array]
    ):
        self._fused, self._parameters, self._networks = fused, parameters, networks
        self._backend = active_backend()
        count(networks.forward_flops(inputs[0].shape[0]))
        self.y: Any
        self.y, self._saved = self._backend.forward(networks, inputs, keep=True)

    @property
    def places(self) -> list[int]:
        """As of `FusedLayers`."""
        return self._fused.places

    def capturing(self) -> list[int]:
        """Indices of the layers that keep what they see in a pass that trains them."""
        return [number for number in self._fused.sparse if self._fused.layers[number].capture]

    def hand_out(self) -> Array:
        """`y`, which may then be changed in place; a copy stays where a layer is to keep its activations."""
        y = self.y
        asked = any(self._fused.layers[number].captures_activations for number in self.capturing())
        self.y = y.copy() if asked else None
        return y

    def backward(self, dy: Array, *, inputs: bool = False) -> Array | None:
        """Sets `grad` of the parameters that require it, given the gradient `dy` (networks, B, n_out) of the output.

        What was there is replaced, and its memory used again.

        Returns:
            With `inputs` the (B, width) gradient of the input.
        """
        needs = [parameter is not None and parameter.requires_grad for parameter in self._parameters]
        dx, gradients = self.gradients(dy, 0 if inputs else None, needs, self.capturing(), reuse=True)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            if gradient is not None and parameter.grad is not gradient:  # type: ignore[union-attr]  # is needed
                parameter.grad = gradient  # type: ignore[union-attr]
        relies_on_gradients(parameter for parameter in self._parameters if parameter is not None)
        return dx

    def backward_to_input(self, dy: Array, width: int = 0) -> Array:
        """(B, width) gradient of the last `width` features of the input, 0: of all; parameters keep their `grad`.

        No layer captures it: a pass that trains nothing says nothing of the weights.
        """
        dx, _ = self.gradients(dy, width, [False] * len(self._parameters), [])
        assert dx is not None
        return dx

    def _activations(self, sample: ActivationPair) -> torch.Tensor:
        """(n_out, B) of a layer that was captured: what is read of its outputs."""
        if sample.a is not None:
            return sample.a
        if self.y is None:
            raise TopologyError("growth by activations needs passes that begin after `begin_update`")
        output = torch.from_numpy(computed(self.y))[sample.network]
        return self._fused.reading(output).t().contiguous()

    def gradients(
        self, dy: Array, width: int | None, needs: Sequence[bool], captured: Sequence[int], *, reuse: bool = False
    ) -> tuple[Array | None, Sequence[torch.Tensor | None]]:
        """Gradient of the input, and of each parameter that is needed; `reuse` as in `GradientRequest`.

        `width` is as in `backward_to_input`, None if no gradient of the input is wanted. Layers at the indices
        `captured` keep what they saw.
        """
        layers, depth = self._fused.layers, len(self._networks.widths) - 1
        used = [self._fused.owners[place] % depth for place, need in enumerate(needs) if need]
        used += [number % depth for number in captured]
        if width is None and not used:
            return None, [None] * len(needs)
        request = GradientRequest(
            inputs=width is not None,
            last=width or 0,
            parameters=any(needs),
            lowest=min(used) if width is None else 0,
            samples=tuple(divmod(number, depth) for number in captured),
            reuse=reuse,
        )
        count(self._networks.backward_flops(dy.shape[1], request))
        result = self._backend.backward(self._networks, self._saved, dy, request)
        if captured:
            not_again()
        for number, sample in zip(captured, result.samples, strict=True):
            other = self._activations(sample) if layers[number].captures_activations else sample.dy
            layers[number].activation_pairs.append((sample.x, other))
        if result.parameters is None:
            return result.x, [None] * len(needs)
        for number in self._fused.sparse:
            if needs[self._fused.places[number]]:
                vars(layers[number])["trained"] = True  # as an attribute of a module it would take ten times as long
        if reuse:
            return result.x, self._fused.shaped(result.parameters, needs)
        return result.x, as_parameters(result.parameters, self._parameters, needs)


def as_parameters(
    gradients: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor | None], needs: Sequence[bool]
) -> list[torch.Tensor | None]:
    """Gradients in the shape of their parameters, None where not needed."""
    return [
        gradient.view_as(parameter) if need and parameter is not None else None
        for need, parameter, gradient in zip(needs, parameters, gradients, strict=True)
    ]


class _Node(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layers: FusedLayers, *parameters: torch.Tensor | None) -> torch.Tensor:
        with program.at_once():
            ctx.fused_pass = layers.run([x])
        ctx.save_for_backward(*parameters)
        # Nothing of it stays in the pass: it will refer to its node, which refers to the pass, and that cycle would
        # outlive the graph.
        return torch.from_numpy(ctx.fused_pass.hand_out())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        # `once_differentiable` would pass `create_graph=True` in silence where the incoming gradient is a constant.
        if torch.is_grad_enabled():
            raise RuntimeError("sparse layers have no second derivative: `create_graph=True` is not supported")
        parameters = ctx.saved_tensors  # raises if a weight was changed in place since the forward pass
        needs_x, _, *needs = ctx.needs_input_grad
        captured = [
            number for number in ctx.fused_pass.capturing() if _trained(parameters[ctx.fused_pass.places[number]])
        ]
        with program.at_once():
            dx, by_parameter = ctx.fused_pass.gradients(gradients[0], 0 if needs_x else None, needs, captured)
        return (None if dx is None else torch.from_numpy(dx), None, *by_parameter)


def _trained(parameter: torch.Tensor) -> bool:
    """Whether the backward pass under way is for this parameter too; a frozen one is in every pass.

    `ctx.needs_input_grad` does not know: it holds true for all that require a gradient, also in `torch.autograd.grad`
    with respect to the input alone.
    """
    if not parameter.requires_grad:
        return True
    try:
        return torch._C._will_engine_execute_node(torch.autograd.graph.get_gradient_edge(parameter).node)
    except RuntimeError:  # refuses to speak of leaves that `torch.autograd.grad` was asked for
        return True
