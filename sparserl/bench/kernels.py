"""`bench kernels`: the three products of a sparse layer beside the dense ones of the installed torch.

Decides what the best dense product is: the faster of two layouts, each writing into memory that is there already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from sparserl.bench.crossover import crossover
from sparserl.bench.options import KernelOptions, Record
from sparserl.bench.threads import limit_threads
from sparserl.bench.tiled_layer import TiledLayer
from sparserl.bench.timing import Contender, Timing, measure, speed_up, spread
from sparserl.layers import SparseLinear
from sparserl.seeding import stream
from sparserl.topology.density import exact_nnz
from sparserl.topology.rewire import random_topology

Products = dict[str, Callable[[], object]]
PRODUCTS = ("forward", "input gradient", "value gradient")
LAYER = "all three"
LAYOUTS = ("batch-major", "feature-major")
Layer = tuple[float, int]
"""(density, neurons that share their inputs)."""
Key = tuple[str, Layer | str, int]
"""(product, sparse layer or dense layout, threads)."""


def measure_kernels(options: KernelOptions) -> Record:
    """Runs the benchmark."""
    configurations = [_configuration(width, batch, options) for width in options.widths for batch in options.batches]
    return {"notes": [], "configurations": configurations}


def sparse_products(layer: SparseLinear, batch: int) -> Products:
    """The products of a layer on random activations, tile by tile, as a pass through a network calls them.

    The input gradient includes bringing the weights into the order of the transposed matrix, the value gradient that of
    the biases.
    """
    tiled = TiledLayer(layer, batch)
    return {
        "forward": tiled.forward,
        "input gradient": tiled.input_gradient,
        "value gradient": tiled.value_gradient,
    }


def dense_products(width: int, batch: int) -> dict[Layer | str, Products]:
    """The same of a dense layer, by layout; nothing is allocated in a call."""
    weight, bias, out = torch.randn(width, width), torch.randn(width), torch.empty(width, width)
    x, dy, y = (torch.randn(batch, width) for _ in range(3))
    x_t, dy_t, y_t = (torch.randn(width, batch) for _ in range(3))
    return {
        "batch-major": {
            "forward": lambda: torch.addmm(bias, x, weight.t(), out=y),
            "input gradient": lambda: torch.mm(dy, weight, out=y),
            "value gradient": lambda: torch.mm(dy.t(), x, out=out),
        },
        "feature-major": {
            "forward": lambda: torch.addmm(bias[:, None], weight, x_t, out=y_t),
            "input gradient": lambda: torch.mm(weight.t(), dy_t, out=y_t),
            "value gradient": lambda: torch.mm(dy_t, x_t.t(), out=out),
        },
    }


def _configuration(width: int, batch: int, options: KernelOptions) -> Record:
    nnz = {
        (density, pairs): exact_nnz((width, width), density, pairs)
        for pairs in options.pairs
        for density in options.densities
    }
    rng = stream(options.seed, "bench_kernels")
    topologies = {which: random_topology(width, width, count, rng, which[1]) for which, count in nnz.items()}
    products = dense_products(width, batch)
    for which, topology in topologies.items():
        products[which] = sparse_products(SparseLinear(topology, dtype=torch.float32), batch)
    contenders = {
        (product, which, threads): Contender(
            partial(_repeat, products[which][product]), setting=partial(limit_threads, threads)
        )
        for product in PRODUCTS
        for which in products
        for threads in options.threads
    }
    with torch.no_grad():
        timings = measure(
            contenders,
            rounds=options.rounds,
            chunk_s=options.chunk_s,
            title=f"width {width}, batch {batch}",
            progress=options.progress,
        )
    rows, crossovers = [], []
    for product in (*PRODUCTS, LAYER):
        for threads in options.threads:
            sparse = {which: _timing(timings, product, [which], threads) for which in nnz}
            dense = _timing(timings, product, LAYOUTS, threads)
            passes = len(PRODUCTS) if product == LAYER else 1
            at = {"product": product, "threads": threads}
            rows.append({**at, "density": None, "pairs": 1, **_numbers(dense, 2 * passes * width * width * batch)})
            for (density, pairs), timing in sparse.items():
                count = nnz[density, pairs]
                ratio = spread(speed_up(timing, dense))
                flop_rates = {name: value * count / width**2 for name, value in ratio.items()}
                numbers = _numbers(timing, 2 * passes * count * batch)
                rows.append(
                    {**at, "density": density, "pairs": pairs, "nnz": count, **numbers}
                    | {"speed_up": ratio, "flop_rate_over_dense": flop_rates}
                )
            for group in options.pairs:
                of_group = [(density, timing) for (density, pairs), timing in sparse.items() if pairs == group]
                medians = [spread(speed_up(timing, dense))["median"] for _, timing in of_group]
                crossovers.append({**at, "pairs": group, **crossover([density for density, _ in of_group], medians)})
    return {"width": width, "batch": batch, "rows": rows, "crossovers": crossovers}


def _repeat(product: Callable[[], object], n: int) -> None:
    for _ in range(n):
        product()


def _timing(timings: Mapping[Key, Timing], product: str, among: Sequence[Layer | str], threads: int) -> Timing:
    """Of one product, or of the sum of all; the fastest by median of `among` for each of them."""
    parts = [
        min((timings[part, which, threads] for which in among), key=lambda timing: float(np.median(timing.seconds)))
        for part in (PRODUCTS if product == LAYER else (product,))
    ]
    return Timing(
        warm_up_s=sum(part.warm_up_s for part in parts),
        units=min(part.units for part in parts),
        seconds=tuple(sum(seconds) for seconds in zip(*(part.seconds for part in parts), strict=True)),
    )


def _numbers(timing: Timing, flops: int) -> Record:
    per_round = [1e6 * seconds for seconds in timing.seconds]
    microseconds = {**spread(per_round), "per_round": per_round}
    effort = {"in_a_chunk": timing.units, "warm_up_s": timing.warm_up_s}
    return {"microseconds": microseconds, "gflop_s": spread([flops / us / 1e3 for us in per_round]), **effort}
