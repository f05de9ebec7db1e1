"""Times the forms that a layer's products can take, for the rules in `sparserl/kernels/choice.py`.

    python results/bench/measure_rules.py WIDTH BATCH DENSITY... [--json FILE]

Forms take turns in one process, one thread. Each line is a form: rows or blocks, columns that blocks take at a time (0:
all of them), vectors of a tile; then the median time of the forward product and of the input gradient over that of the
form that the rules choose today. The value gradient is timed with and without panels of rows. The first layers that a
process makes are slower than later ones: give the first density twice.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch

from sparserl.bench.threads import limit_threads
from sparserl.bench.tiled_layer import TiledLayer
from sparserl.bench.timing import Contender, measure
from sparserl.kernels import choice
from sparserl.layers import SparseLinear
from sparserl.seeding import stream
from sparserl.topology.density import exact_nnz
from sparserl.topology.rewire import random_topology

PANELS = (0, 128, 256, 384, 512)
VECTORS = range(1, choice.TILE_VECTORS + 1)
RULES = "rules"
Form = tuple[bool | None, int, int | None, bool | None]
"""Arguments of `form`."""
PRODUCTS = ("forward", "input_gradient", "value_gradient")


@contextmanager
def form(blocks: bool | None, panel: int, vectors: int | None, in_panels: bool | None) -> Iterator[None]:
    """Rules that always choose one form, for layers that are made meanwhile; None: today's rule."""
    rules: dict[str, Any] = {}
    if blocks is not None:
        rules |= {"choice.takes_blocks": lambda *_: blocks, "choice.block_panel": lambda n_cols, _: panel or n_cols}
    if vectors is not None:
        rules["plan.tile_vectors"] = lambda _: vectors
    if in_panels is not None:
        rules["choice.PANELS_FROM"] = ((0, 0.0),) if in_panels else ()
    with ExitStack() as patches:
        for name, rule in rules.items():
            patches.enter_context(patch(f"sparserl.kernels.{name}", rule))
        yield


def forms(width: int) -> dict[str, Form]:
    """Name -> arguments of `form`."""
    named: dict[str, Form] = {RULES: (None, 0, None, None)}
    for vectors in VECTORS:
        named[f"rows, {vectors} vectors"] = (False, 0, vectors, False)
        named[f"rows, {vectors} vectors, sums in panels"] = (False, 0, vectors, True)
        for panel in PANELS:
            if panel < width:
                named[f"blocks of {panel or 'all'} columns, {vectors} vectors"] = (True, panel, vectors, None)
    return named


def run(layer: TiledLayer, product: str, calls: int) -> None:
    """Calls a product."""
    for _ in range(calls):
        getattr(layer, product)()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("width", type=int)
    parser.add_argument("batch", type=int)
    parser.add_argument("densities", type=float, nargs="+")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    wish = parser.parse_args()
    limit_threads(1)
    measured = []
    for density in wish.densities:
        nnz = exact_nnz((wish.width, wish.width), density)
        topology = random_topology(wish.width, wish.width, nnz, stream(0, "measure_rules"))
        contenders = {}
        for name, setting in forms(wish.width).items():
            with form(*setting), torch.no_grad():
                layer = TiledLayer(SparseLinear(topology, dtype=torch.float32), wish.batch)
                layer.input_gradient()  # whose blocks are chosen at the first call
            for product in PRODUCTS:
                contenders[product, name] = Contender(partial(run, layer, product))
        with torch.no_grad():
            timings = measure(contenders, rounds=wish.rounds, chunk_s=0.02, title=f"density {density}", progress=False)
        print(f"width {wish.width}, batch {wish.batch}, density {density}: {', '.join(PRODUCTS)}")
        for name in forms(wish.width):
            ratios = {
                product: median(
                    one / rule
                    for one, rule in zip(timings[product, name].seconds, timings[product, RULES].seconds, strict=True)
                )
                for product in PRODUCTS
            }
            measured.append({"width": wish.width, "batch": wish.batch, "density": density, "form": name, **ratios})
            print(f"  {name:<38}" + "".join(f"{ratio:8.3f}" for ratio in ratios.values()), flush=True)
    if wish.json is not None:
        wish.json.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
