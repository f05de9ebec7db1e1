"""How many connections each layer gets: allocation of a density budget across layers.

Pure functions from layer shapes to densities and from densities to exact counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sparserl.errors import TopologyError
from sparserl.topology.group_sizes import nearest_multiple

Shape = tuple[int, int]
"""(n_out, n_in) of a layer."""


def check_density(density: float) -> float:
    """Returns `density`, or raises TopologyError unless it lies in (0, 1]."""
    if not isinstance(density, int | float) or not 0.0 < density <= 1.0:
        raise TopologyError(f"density must be in (0, 1], got {density!r}")
    return density


def check_can_be_met(density: float, shapes: Sequence[Shape]) -> None:
    """Raises TopologyError if one density of some layers leaves them fewer connections than one each."""
    size = sum(n_out * n_in for n_out, n_in in shapes)
    if density * size < len(shapes):
        raise TopologyError(
            f"density {density:g} leaves {len(shapes)} layers of {size:,} possible connections fewer than one each; "
            f"the closest is {1.01 * len(shapes) / size:.2g}"
        )


def exact_nnz(shape: Shape, density: float, pairs: int = 1) -> int:
    """Number of connections of a layer at `density`: `N - floor((1 - density) N)`, at least 1.

    Where `pairs` outputs share their inputs, the nearest multiple of it, at least one; of two the larger.

    Source:
        Mask counting of RigL's and jaxpruner's code. The product is rounded at 1e-9 first, so that a
        density that is exact on paper is exact here (0.9 of 10 drops one connection, not none).
    """
    size = shape[0] * shape[1]
    return nearest_multiple(max(1, size - math.floor(round((1.0 - density) * size, 9))), pairs)


def uniform(shapes: Sequence[Shape], density: float) -> list[float]:
    """The same density for every layer."""
    return [check_density(density)] * len(shapes)


LAST_AT_LEAST = 0.2
"""Share of the output layer's connections that `uniform_plus` keeps."""


def uniform_plus(shapes: Sequence[Shape], density: float) -> list[float]:
    """The same density for every layer but the last, of which a fifth exists at least; the budget holds over all.

    Raises:
        TopologyError: If the budget is less than that fifth.

    Source:
        Lee et al. 2021 (LAMP) and Liu et al. 2022 (random pruning), code; their first convolution, which stays dense,
        is none of these layers.

    Example:
        >>> [round(d, 4) for d in uniform_plus([(256, 17), (256, 256), (6, 256)], 0.1)]
        [0.0978, 0.0978, 0.2005]
    """
    check_density(density)
    sizes = [n_out * n_in for n_out, n_in in shapes]
    last = math.ceil(round(LAST_AT_LEAST * sizes[-1], 9))
    if density * sizes[-1] >= last or len(sizes) == 1:
        return uniform(shapes, density)
    others = density * sum(sizes) - last
    if others <= 0.0:
        raise TopologyError(
            f"density {density} of {sum(sizes)} connections is less than the {last} that uniform_plus keeps in the "
            f"last layer: use more than {last / sum(sizes):.3g}"
        )
    return [*[others / sum(sizes[:-1])] * (len(sizes) - 1), last / sizes[-1]]


def erk_plus(shapes: Sequence[Shape], density: float, last: float) -> list[float]:
    """Erdos-Renyi-kernel densities of all layers but the last, whose density is given and outside the budget.

    Args:
        shapes: (n_out, n_in) of each layer.
        density: Of the others together, in (0, 1].
        last: Of the last layer, in (0, 1].

    Source:
        Liu et al. 2022 (random pruning), ERK+; a layer of its own density as in the code of RigL.
    """
    return [*erk(shapes[:-1], density), check_density(last)]


def erdos_renyi(shapes: Sequence[Shape], epsilon: Sequence[float]) -> list[float]:
    """Density `epsilon_l (n_in + n_out) / (n_in n_out)` for each layer, clipped at 1.

    Args:
        shapes: (n_out, n_in) of each layer.
        epsilon: One factor a layer, or one for all, > 0 (lambda in the DS-TD3 paper).

    Raises:
        TopologyError: If the numbers of layers and factors differ, or a factor is not positive.

    Source:
        Mocanu et al. 2018 (SET), equation 1; Sokar et al. 2022 (DS-TD3), section 3.2.

    Example:
        >>> [round(d, 4) for d in erdos_renyi([(256, 17), (256, 256)], [7, 64])]
        [0.4391, 0.5]
    """
    epsilon = list(epsilon) * len(shapes) if len(epsilon) == 1 else epsilon
    if len(epsilon) != len(shapes):
        raise TopologyError(
            f"{len(shapes)} layers take part and need as many epsilon, or one, got {len(epsilon)}; or set a density"
        )
    if any(e <= 0 for e in epsilon):
        raise TopologyError(f"epsilon must be positive, got {list(epsilon)}")
    return [min(1.0, e * sum(shape) / (shape[0] * shape[1])) for e, shape in zip(epsilon, shapes, strict=True)]


def per_layer(shapes: Sequence[Shape], densities: Sequence[float]) -> list[float]:
    """Explicit densities.

    Raises:
        TopologyError: If their number differs from the layers', or one is outside (0, 1].
    """
    if len(densities) != len(shapes):
        raise TopologyError(f"{len(shapes)} layers take part and need as many densities, got {len(densities)}")
    return [check_density(d) for d in densities]


def erk(shapes: Sequence[Shape], density: float, power: float = 1.0) -> list[float]:
    """Erdos-Renyi-kernel densities that meet one budget over all layers.

    Density is `e r_l` with `r_l = ((n_in + n_out) / (n_in n_out))^power`. While the largest exceeds 1, the
    layers with the largest r_l become dense and e is solved again for the rest.

    Args:
        shapes: (n_out, n_in) of each layer that shares the budget.
        density: Share of all connections of these layers that exist, in (0, 1].
        power: Exponent of r_l; 1 in the papers.

    Source:
        Evci et al. 2020 (RigL), section 3; clipping procedure of its code. For linear layers ER = ERK.

    Example:
        >>> [round(d, 4) for d in erk([(256, 17), (256, 256), (6, 256)], 0.1)]
        [0.4481, 0.0558, 1.0]
    """
    check_density(density)
    raw = [(sum(shape) / (shape[0] * shape[1])) ** power for shape in shapes]
    dense: set[int] = set()
    while len(dense) < len(shapes):
        budget = weight = 0.0
        for layer, (n_out, n_in) in enumerate(shapes):
            size = n_out * n_in
            n_zeros = math.floor(round((1.0 - density) * size, 9))
            if layer in dense:
                budget -= n_zeros
            else:
                budget += size - n_zeros
                weight += raw[layer] * size
        e = budget / weight
        largest = max(r for layer, r in enumerate(raw) if layer not in dense)
        if e * largest <= 1.0:
            return [1.0 if layer in dense else e * r for layer, r in enumerate(raw)]
        dense |= {layer for layer, r in enumerate(raw) if layer not in dense and r == largest}
    return [1.0] * len(shapes)


ALLOCATIONS: dict[str, Callable[..., list[float]]] = {
    "erk": erk,
    "uniform": uniform,
    "erk_plus": erk_plus,
    "uniform_plus": uniform_plus,
}
"""How one density is shared out among layers."""
OF_OUTPUT_LAYER = ("erk_plus", "uniform_plus")
"""Those that treat the output layer in a way of their own."""
