"""A product for several rows at once: a loaded activation is used by every row of the block that has its column.

The columns of a block of rows are grouped by which of the rows use them, their *pattern*: row r of the block is bit r.
Each group is one loop, so there is no test inside, whatever the topology. For two rows, columns that only the first
uses are taken together with as many that only the second uses: their sums do not wait for each other.

Source: Sparse Register Tiling, Wilkinson et al., PLDI 2023, there for inference.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sparserl.kernels.emitter import I32, I64, LANES, Emitter


def groups_of(rows: int) -> list[tuple[int, ...]]:
    """Patterns that are looped over together, in the order of a block's columns."""
    if rows == 2:
        return [(0b11,), (0b01, 0b10), (0b01,), (0b10,)]
    return [(pattern,) for pattern in sorted(range(1, 2**rows), key=lambda p: (-p.bit_count(), p))]


def rows_of(pattern: int) -> list[int]:
    """Rows of a block that use a column."""
    return [row for row in range(pattern.bit_length()) if pattern >> row & 1]


def block_tile(rows: int, *, gated: bool) -> Any:
    """Makes a Numba function that computes `rows` rows of `bias + W x` for a tile, or of as much as lies in a panel.

    Its arguments: width of the tile in vectors, addresses of the block's counts (one uint32 for each of the groups),
    columns (uint32) and values, 1 if this is the first panel of columns else 0 (sums go on from what `out` holds), and
    the same for the last; address of the biases (0: none), of the tile `x`, of the first row to write, threshold, and,
    if `gated`, the address of the first row of gates; threshold and gates as `vector.row_tile` takes them. It returns
    the addresses of the columns and values that follow.
    """
    size: Any = types.intp
    both: Any = types.UniTuple(size, 2)  # type: ignore[no-untyped-call]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors, counts, columns, values, is_first, is_last, biases, x, out, threshold, *gates = arguments
        emit = Emitter(context, builder, signature.args[9], by_register=True)
        count_data, x_data, out_data = emit.pointer(counts, I32), emit.pointer(x), emit.pointer(out)

        def block_of(width: int) -> Any:
            registers = width * LANES // emit.lanes
            out_rows = [emit.at(out_data, row * width * LANES) for row in range(rows)]

            def biased() -> list[Any]:
                scalars = [builder.load(emit.at(emit.pointer(biases), row)) for row in range(rows)]
                return [total for scalar in scalars for total in [emit.splat(scalar)] * registers]

            def so_far() -> list[Any]:
                return [total for row in out_rows for total in emit.row(row, width)]

            def empty() -> list[Any]:
                return [emit.zeros()] * (rows * registers)

            fresh = empty if gated else lambda: emit.where(_is_set(builder, biases), biased, empty)
            sums = emit.where(_is_set(builder, is_first), fresh, so_far)
            cursor, value = emit.pointer(columns, I32), emit.pointer(values)
            for group, patterns in enumerate(groups_of(rows)):

                def turn(at: Any, state: list[Any], patterns: tuple[int, ...] = patterns) -> list[Any]:
                    factor, *sums = state
                    for index, pattern in enumerate(patterns):
                        row = emit.neuron(emit.at(at, index), x_data, width)
                        used = rows_of(pattern)
                        weights = [emit.splat(builder.load(emit.at(factor, index))) for index in range(len(used))]
                        for register, entry_at in enumerate(emit.pointers(row, width)):
                            entry = emit.load(entry_at)
                            for weight, used_row in zip(weights, used, strict=True):
                                total = used_row * registers + register
                                sums[total] = emit.multiply_add(weight, entry, sums[total])
                        factor = emit.at(factor, len(used))
                    return [factor, *sums]

                count = builder.zext(builder.load(emit.at(count_data, group)), I64)
                end = emit.at(cursor, builder.mul(count, ir.Constant(I64, len(patterns))))
                cursor, (value, *sums) = emit.repeat(cursor, end, len(patterns), [value, *sums], turn)
            by_row = [sums[row * registers : (row + 1) * registers] for row in range(rows)]

            def keep() -> list[Any]:
                for row, totals in zip(out_rows, by_row, strict=True):
                    for pointer, total in zip(emit.pointers(row, width), totals, strict=True):
                        emit.store(total, pointer)
                return []

            def finish() -> list[Any]:
                for index, (row, totals) in enumerate(zip(out_rows, by_row, strict=True)):
                    gate = [emit.at(emit.pointer(address), index * width * LANES) for address in gates]
                    emit.finish(totals, row, width, threshold, *gate)
                return []

            emit.where(_is_set(builder, is_last), finish, keep)
            after = [builder.ptrtoint(pointer, I64) for pointer in (cursor, value)]
            return context.make_tuple(builder, both, after)

        return emit.by_width(vectors, block_of)

    if gated:

        @intrinsic
        def gated_block(
            typing_context: Any,
            vectors: Any,
            counts: Any,
            columns: Any,
            values: Any,
            is_first: Any,
            is_last: Any,
            biases: Any,
            x: Any,
            out: Any,
            threshold: Any,
            gates: Any,
        ) -> Any:
            del typing_context, vectors, counts, columns, values, is_first, is_last, biases, x, out, gates
            return both(size, size, size, size, size, size, size, size, size, threshold, size), generate

        return gated_block

    @intrinsic
    def block(
        typing_context: Any,
        vectors: Any,
        counts: Any,
        columns: Any,
        values: Any,
        is_first: Any,
        is_last: Any,
        biases: Any,
        x: Any,
        out: Any,
        threshold: Any,
    ) -> Any:
        del typing_context, vectors, counts, columns, values, is_first, is_last, biases, x, out
        return both(size, size, size, size, size, size, size, size, size, threshold), generate

    return block


def _is_set(builder: Any, flag: Any) -> Any:
    return builder.icmp_signed("!=", flag, ir.Constant(I64, 0))
