"""Tables that tell the kernels of the CPU backend what to work on: columns of that of layers, arguments of steps."""

from __future__ import annotations

from sparserl.kernels.choice import BLOCK_ROWS
from sparserl.kernels.patterns import groups_of

N_IN, N_OUT, ROW_PTR, COL, VALUES, BIAS, T_ROW_PTR, T_COL, T_SLOT, IN_ORDER, D_VALUES, D_BIAS, SAMPLE = range(13)
"""Columns of the table that describes networks to the kernels: sizes and addresses (0: none) of each layer.

`IN_ORDER` holds the values in the order of the transposed index, `SAMPLE` gets the output's gradient. `D_VALUES` and
`D_BIAS` are offsets into a thread's array of gradients, counted in floats.
"""
BLOCKS, PANELS, COUNTS, COLUMNS, SLOT, ORDERED, T_BLOCKS, T_PANELS, T_COUNTS, T_COLUMNS = range(13, 23)
"""For products that go by blocks of rows (see `PatternIndex`; 0 blocks: by row), and those of the transposed matrix.

`ORDERED` holds the values in the order of the blocks; `IN_ORDER` and `T_SLOT` have that of the transposed blocks then.
"""
PANEL_ROWS, COLUMN_STARTS = 23, 24
"""Rows whose gradients are formed together, over all tiles (0: those of all rows, tile by tile), and for these layers
the address of `CsrIndex.column_starts`."""
LEARNED_ROW_PTR, LEARNED_COL, STORED = range(25, 28)
"""Index and values of all slots, of which gradients are; `ROW_PTR`, `COL` and `VALUES` are of those that products use,
and the same arrays where these are all. Otherwise `SLOT` and `ORDERED` say how these values are gathered."""
NORM, SCALE, SHIFT, EPSILON, D_SCALE, D_SHIFT, ACTIVATION, ADDED, D_SLOT = range(28, 37)
"""What stands around a product. `NORM` is one of those below, 0 for none; `SCALE`, `SHIFT` and `EPSILON` are addresses,
`D_SCALE` and `D_SHIFT` offsets as `D_VALUES`. `ACTIVATION` is one of those below, 0 for none, `ADDED` the level that is
added to the sums, or -1. `D_SLOT` is the place among the tiles of a share for the gradient by what is multiplied."""
RUNNING_MEAN, RUNNING_VAR, BOUNDS, LATEST = range(37, 41)
"""Addresses of `BatchStatistics`, where a norm is `BY_BATCH`; `LATEST` gets the mean, then the variance of each
neuron."""
FIELDS = 41

RELU, TANH = 1, 2
"""Activations: their places in `networks.ACTIVATIONS`."""
BY_SAMPLE, GIVEN, BY_BATCH = 1, 2, 3
"""Norms: of the neurons of each sample, by scale and shift alone, which have no gradient, and of each neuron over all
samples."""
STATISTIC_ROWS = 5
FACTOR, CENTER, MEAN, INVERSE, BY_ROOT, RATIO, TOTAL, ALONG = range(8)
"""Rows of the statistics of neurons where a norm is `BY_BATCH`: what a pass multiplies by and subtracts before; of the
batch the mean; the factor without scale; the derivative of `CENTER` by the variance; `r` of the norm; on the way back
the sums of the gradient, and of it times the difference from `CENTER`."""
FEATURE_ROWS = 8

FORWARD, BACKWARD = 0, 1
"""Which products' order of values `order_share` makes."""
GROUPS = len(groups_of(BLOCK_ROWS))
"""Patterns of a block."""

(
    TABLE,
    NETWORKS,
    DEPTH,
    TILES,
    N_TILES,
    LEVELS,
    SCRATCH,
    LAST,
    LIMITS,
    SIZE,
    BATCH,
    KEPT,
    SOURCES,
    N_SOURCES,
    OUTPUT,
    ORDER_FROM,
    LOWEST,
    SUMS,
    D_OUTPUT,
    D_INPUT,
    D_WIDTH,
    WAY,
    D_LEVELS,
    READS,
    STATISTICS,
    N_SLOTS,
    D_FIRST,
    BEGIN,
    END,
    ENDS,
) = range(30)
"""Arguments of the steps of a pass: sizes and addresses.

`TABLE` (networks, depth, FIELDS), `TILES` (tiles, 2) first sample and width in vectors, `LEVELS` (networks or shares,
depth) address of the level that each layer reads, `SCRATCH` (shares, `N_SLOTS`) addresses of a tile of the widest
level, `LAST` (shares,)
addresses for a tile of the output, `LIMITS` (0, -inf, NaN) of the element type, `SIZE` bytes of an element, `BATCH`
samples, `KEPT` 1 if a level holds all tiles one after the other and 0 if each replaces the one before, `SOURCES`
(sources, 2) address of a (B, width) part of the input and its width, `OUTPUT` (networks, B, n_out), `ORDER_FROM` the
first layer whose weights are needed in another order, `LOWEST` the first whose gradients matter, `SUMS` (shares,)
addresses of sums of gradients or 0, `D_OUTPUT` the gradient of the output, `D_INPUT`
(networks, B, `D_WIDTH`) address for that of the last features of the input, or 0, `WAY` as in `order_share`, `D_LEVELS`
(networks, depth) address for the gradient of what each layer gives, all tiles one after the other, where the layer has
`PANEL_ROWS`, `READS` as `LEVELS` what each layer multiplies, which is the level itself where there is no norm,
`STATISTICS` as `LEVELS` `STATISTIC_ROWS` rows where a norm is `BY_SAMPLE`: means and factors of the samples, the others
for sums on the way back; where it is `BY_BATCH`, `FEATURE_ROWS` rows of the neurons. `D_FIRST` (networks,) address for
the gradient of the input as `D_LEVELS`, where the first norm is `BY_BATCH`, `BEGIN` and `END` the layers that the step
goes through, `ENDS` 1 if it reads the input, or writes its gradient.
"""
PASS = 30
