"""Which kernel a layer takes, and how wide a tile is: rules from measurements, all of them here.

They depend on the CPU, on a layer's sizes and on its connections, never on a clock: a run that is resumed takes the
same kernels, and so the same order of sums, as one that was not interrupted. Measured with registers of 256 bits (Zen
3, 32 KB of first-level cache) and of 512 bits (Zen 5, 48 KB), by `results/bench/measure_rules.py` for products and by
`compare_checkouts.py` for whole updates, which decide. Figures are shares of the dense product's FLOP rate, or of the
time that another form takes.
"""

from __future__ import annotations

from collections.abc import Callable

import llvmlite.binding as llvm

REGISTER_BYTES = 64 if llvm.get_host_cpu_features().get("avx512f") else 32
"""Of the vector registers that kernels are made for; narrower ones are LLVM's matter."""
MANY_REGISTERS = REGISTER_BYTES == 64
"""Whether there are 32 registers, as there are of 512 bits, or 16."""
BLOCK_ROWS = 4 if MANY_REGISTERS else 2
"""Rows that a pattern kernel computes together: as many as leave their sums in registers.

With 16 registers of 256 bits, 4 rows of one vector reach .54 at density .1, .67 at .3 and 1.0 at 1, 2 rows of two
vectors .61, .70 and .95. With 32 of 512 bits, 4 rows fit with the widest tile.
"""
TILE_VECTORS = 4 if MANY_REGISTERS else 3
"""Vectors that a tile has at most: a connection's column and weight are read once for so many samples.

With registers of 512 bits, updates at density .1 and batch 256 take .82 of the time that they take with three;
compiling takes 3 s longer.
"""
WIDE = 512
"""Columns beyond which rows are long, and what they read of a tile leaves the caches nearest to a core."""


def tile_vectors(widest: int) -> int:
    """Vectors that a tile has at most in networks whose widest level has `widest` neurons.

    With registers of 256 bits, two from `WIDE` neurons on. With 1,024 neurons, forward, parameters' and input gradients
    of two layers take .79, .86 and .82 of the time that they take with three at density .1, .87, .96 and .94 at .5;
    with 512 neurons .87, .94 and .86 at .1, the same at .5. With 256 neurons three are as fast, and faster in whole
    updates, which read and write narrow levels too. Registers of 512 bits hold four at any width.
    """
    return 2 if widest >= WIDE and not MANY_REGISTERS else TILE_VECTORS


PANELS_FROM = ((9 << 17, 0.15), (1 << 18, 0.4))
"""Bytes of a layer's gradients by values, and density, from which on these are formed in panels of rows."""
PANEL_BYTES = 1 << 16
"""Of the gradients of a panel; with 32 and 128 KB it takes 1.03 and 1.04 times as long."""
PANEL_COLUMNS = 128
"""Columns that a panel of rows takes at a time, so that what it reads of a tile stays in the nearest cache: .72 of the
time that it takes with all 1,024 at density .5, with 256 it is .82."""
MOST_COLUMNS = 4096
"""Of a layer whose gradients are formed in panels: all tiles of what such a layer gives are kept for them."""


def gradient_panel(n_rows: int, n_cols: int, nnz: int, size: int) -> int:
    """Rows whose gradients by values are summed over all tiles before the next ones are; 0: all rows, tile by tile.

    Tile by tile, all sums of a layer pass through the caches once a tile and activations stay; in panels the sums stay
    and activations pass. With registers of 256 bits and batch 256, panels take .33 of the time at density .5 with 1,024
    neurons, .82 at .3, 1.0 at .25 and 1.2 at .2 (at batch 100 .40 at .5, 1.3 at .2); with 2,048 neurons .60 at .25, .73
    at .2 and 1.0 at .1; with 512 .87 at .5 and .4, 1.1 at .3 and .2; with 384 .80 at .5; with 256 .98 at .5, .89 at 1.
    With registers of 512 bits the product alone gains sooner (.84 at .1 and .77 at .2 with 1,024 neurons, .91 at .4
    with 256), whole updates do not (.99 to 1.04).

    Args:
        n_rows: Rows of the layer.
        n_cols: Columns.
        nnz: Connections.
        size: Bytes of a value.
    """
    large = any(nnz * size >= fewest and nnz >= density * n_rows * n_cols for fewest, density in PANELS_FROM)
    return max(1, n_rows * PANEL_BYTES // (nnz * size)) if large and n_cols <= MOST_COLUMNS else 0


FEWEST = 8
"""Connections a row below which starting a loop for each pattern costs more than it gains."""


def takes_blocks(n_rows: int, n_cols: int, nnz: int, shared: Callable[[], float]) -> bool:
    """Whether a product goes by blocks of rows, or row by row.

    With registers of 256 bits and up to `WIDE` columns, blocks win from density .05 on (row by row .41, blocks .49; at
    .1 as good; at .2 .60 and .68; at .5 .63 and .78; at 1 .63 and 1.0), beyond only from .15 on (1,024 columns: .35 and
    .35 at .05, .43 and .50 at .2, .38 and .70 at .5). With 512 bits, products of 1,024 columns are faster by blocks
    from .05 on (.88 to 1.0 of the time; .83 at .1), but whole updates, which also bring values into the order of
    blocks, are not: 1.05 times as long at .1. Rows that share their columns win at any density.

    Args:
        n_rows: Rows of the matrix (for the input gradient, of the transposed one).
        n_cols: Columns.
        nnz: Connections.
        shared: Tells the share of the connections in columns that all rows of their block use; asked only where it
            decides.
    """
    if n_rows < BLOCK_ROWS or nnz < FEWEST * n_rows:
        return False
    return nnz >= (0.15 if n_cols > WIDE else 0.04) * n_rows * n_cols or shared() >= 0.5


def block_panel(n_cols: int, density: float) -> int:
    """Columns that blocks take at a time, so that what they read of a tile stays in the nearest cache.

    Sums go through memory between panels. With registers of 256 bits and 256 columns, panels of 128 reach .72 instead
    of .70 at density .3, .78 instead of .75 at .5; with 1,024, panels of 256 reach .48 instead of .42 at .2, .70
    instead of .53 at .5. With registers of 512 bits and 256 columns, whole updates at .5 take 1.14 times as long with
    panels of 128 at batch 100, .88 at batch 256; with 1,024, products take .82 at .2 and .98 at .5 with panels of 256,
    with 2,048 1.2 to 1.3 times as long at .1 and as long at .2.
    """
    if n_cols > WIDE:
        return 256 if density >= 0.15 and not (MANY_REGISTERS and n_cols > 2 * WIDE) else n_cols
    return 128 if density >= 0.3 and not MANY_REGISTERS else n_cols
