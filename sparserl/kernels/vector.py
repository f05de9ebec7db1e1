"""The inner loops as LLVM vector code: what Numba's own vectoriser leaves slow.

All of them work on one *tile*: `vectors * LANES` columns (samples) of every neuron, contiguous, one row of that length
for each neuron. `row_tile` keeps a row of the product in registers while it walks the row's connections, so that a
connection costs one load and one multiply-add per vector and no store. `row_gradient` forms the inner products of
several connections with one row at once and folds the sums of all of them together, which takes a fraction of the
shuffles that one sum after the other takes.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sparserl.kernels.compiled import compiled
from sparserl.kernels.emitter import CONTRACT, I32, I64, Emitter, lanes_of


def row_tile(*, gated: bool) -> Any:
    """Makes a Numba function that computes one row of `bias + W x` for a tile.

    Its arguments: width of the tile in vectors, addresses of values and columns, first and past-the-last slot of the
    row, bias of the row, address of the tile `x`, address of the row to write, threshold, and, if `gated`, the address
    of a row of gates. Without gates what is below the threshold is replaced by it (0 makes a ReLU, -inf nothing); with
    gates what has a gate at or below the threshold becomes 0 (0 makes the slope of a ReLU, NaN nothing). NaN passes, as
    in torch.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors, values, col, start, stop, bias, x, out, threshold, *gates = arguments
        emit = Emitter(context, builder, signature.args[5])
        x_data = emit.pointer(x)
        first, last = (emit.at(emit.pointer(col, I32), slot) for slot in (start, stop))
        even = emit.at(first, builder.and_(builder.sub(stop, start), ir.Constant(I64, -2)))
        value = emit.at(emit.pointer(values), start)

        def row_of(width: int) -> None:
            def connection(at: Any, factor: Any, sums: list[Any]) -> list[Any]:
                weight = emit.splat(builder.load(factor))
                row = emit.row(emit.neuron(at, x_data, width), width)
                return [emit.multiply_add(weight, entry, total) for entry, total in zip(row, sums, strict=True)]

            def two(at: Any, state: list[Any]) -> list[Any]:
                # Two sets of sums: additions to one set take longer than there are vectors in a tile.
                factor, sums, others = state[0], state[1 : width + 1], state[width + 1 :]
                return [
                    emit.at(factor, 2),
                    *connection(at, factor, sums),
                    *connection(emit.at(at, 1), emit.at(factor, 1), others),
                ]

            initial = [value, *[emit.splat(bias)] * width, *[emit.zeros()] * width]
            middle, (factor, *state) = emit.repeat(first, even, 2, initial, two)
            sums = [builder.fadd(a, b) for a, b in zip(state[:width], state[width:], strict=True)]
            sums = emit.repeat(middle, last, 1, sums, lambda at, sums: connection(at, factor, sums))[1]
            emit.finish(sums, emit.pointer(out), width, threshold, *map(emit.pointer, gates))

        emit.by_width(vectors, row_of)
        return context.get_dummy_value()

    size = types.intp
    if gated:

        @intrinsic
        def gated_row(
            typing_context: Any,
            vectors: Any,
            values: Any,
            col: Any,
            start: Any,
            stop: Any,
            bias: Any,
            x: Any,
            out: Any,
            threshold: Any,
            gates: Any,
        ) -> Any:
            del typing_context, vectors, values, col, start, stop, x, out, threshold, gates
            return types.void(size, size, size, size, size, bias, size, size, bias, size), generate

        return gated_row

    @intrinsic
    def row(
        typing_context: Any,
        vectors: Any,
        values: Any,
        col: Any,
        start: Any,
        stop: Any,
        bias: Any,
        x: Any,
        out: Any,
        threshold: Any,
    ) -> Any:
        del typing_context, vectors, values, col, start, stop, x, out, threshold
        return types.void(size, size, size, size, size, bias, size, size, bias), generate

    return row


def _row_gradient(
    typing_context: Any, vectors: Any, col: Any, start: Any, stop: Any, x: Any, dy: Any, out: Any, witness: Any
) -> Any:
    """Adds to a row's entries of a gradient their inner products over a tile.

    Arguments: width of the tile in vectors, address of the columns, first and past-the-last slot, addresses of the tile
    `x`, of the row of `dy` and of the gradient, and a witness of the element type.
    """
    del typing_context, vectors, col, start, stop, x, dy, out
    size = types.intp
    signature = types.void(size, size, size, size, size, size, size, witness)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors, col, start, stop, x, dy, out, _ = arguments
        emit = Emitter(context, builder, signature.args[7], by_register=True)
        x_data, first, last = emit.pointer(x), *(emit.at(emit.pointer(col, I32), slot) for slot in (start, stop))

        def row_of(width: int) -> None:
            gradient = emit.row(emit.pointer(dy), width)

            def product(at: Any) -> Any:
                total = None
                for factor, entry in zip(gradient, emit.row(emit.neuron(at, x_data, width), width), strict=True):
                    total = builder.fmul(factor, entry) if total is None else emit.multiply_add(factor, entry, total)
                return total

            cursor, target = first, emit.at(emit.pointer(out), start)
            for count in dict.fromkeys((emit.lanes, 4, 1)):
                ends_in = lanes_of(count, emit.lanes)
                # Connection c is folded from the vector whose sum ends in the c-th of the lanes that are used.
                order = sorted(range(count), key=ends_in.__getitem__)
                lanes = [ends_in[vector] for vector in order]

                def several(
                    at: Any, state: list[Any], count: int = count, order: list[int] = order, lanes: list[int] = lanes
                ) -> list[Any]:
                    sums = [None] * count
                    for connection, vector in enumerate(order):
                        sums[vector] = product(emit.at(at, connection))
                    folded = emit.folded(sums)
                    emit.store(builder.fadd(emit.load(state[0], count), emit.shuffle(folded, folded, lanes)), state[0])
                    return [emit.at(state[0], count)]

                left = builder.sub(builder.ptrtoint(last, I64), builder.ptrtoint(cursor, I64))
                whole = builder.and_(builder.ashr(left, ir.Constant(I64, 2)), ir.Constant(I64, -count))
                cursor, (target,) = emit.repeat(cursor, emit.at(cursor, whole), count, [target], several)

        emit.by_width(vectors, row_of)
        return context.get_dummy_value()

    return signature, generate


def _row_total(typing_context: Any, vectors: Any, row: Any, witness: Any) -> Any:
    """Sum of a row of a tile; arguments: width of the tile in vectors, address of the row, a witness of its type."""
    del typing_context, vectors, row

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors, row, _ = arguments
        emit = Emitter(context, builder, signature.args[2])

        def total_of(width: int) -> Any:
            first, *others = emit.row(emit.pointer(row), width)
            for other in others:
                first = builder.fadd(first, other)
            return builder.extract_element(emit.folded([first]), ir.Constant(I32, 0))

        return emit.by_width(vectors, total_of)

    return witness(types.intp, types.intp, witness), generate


def _read_real(typing_context: Any, address: Any, index: Any, witness: Any) -> Any:
    """Entry `index` of the float array at an address."""
    del typing_context, address, index

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(context, builder, signature.args[2])
        return builder.load(emit.at(emit.pointer(arguments[0]), arguments[1]))

    return witness(types.intp, types.intp, witness), generate


def _write_real(typing_context: Any, address: Any, index: Any, value: Any, witness: Any) -> Any:
    """Sets entry `index` of the float array at an address; the value is converted to the type of the witness."""
    del typing_context, address, index, value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(context, builder, signature.args[3])
        builder.store(arguments[2], emit.at(emit.pointer(arguments[0]), arguments[1]))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, witness, witness), generate


def _read_integer(bits: int) -> Any:
    @intrinsic
    def read(typing_context: Any, address: Any, index: Any) -> Any:
        del typing_context, address, index

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            element = ir.IntType(bits)
            pointer = builder.inttoptr(arguments[0], element.as_pointer())
            entry = builder.load(builder.gep(pointer, [arguments[1]]))
            return entry if bits == 64 else builder.zext(entry, I64)

        return types.intp(types.intp, types.intp), generate

    return read


read_int64, read_uint32 = _read_integer(64), _read_integer(32)


def _pointer(typing_context: Any, address: Any, witness: Any) -> Any:
    """An address as a pointer to numbers of the type of the witness."""
    del typing_context, address

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(witness)(types.int64, witness), generate  # type: ignore[no-untyped-call]  # Numba's


_pointer_to: Any = intrinsic(_pointer)


@compiled()
def array_at(address: int, shape: Any, witness: Any) -> Any:
    """The array at an address, of the type of the witness."""
    return numba.carray(_pointer_to(address, witness), shape)  # type: ignore[attr-defined]  # is there


@compiled()
def int64_array(address: int, shape: Any) -> Any:
    """The array of int64 at an address."""
    return array_at(address, shape, np.int64(0))


def _multiply_add(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """`a * b + c`, rounded once where the CPU can, as torch does."""
    del typing_context, b, c

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b, c = arguments
        return builder.fadd(builder.fmul(a, b, flags=CONTRACT), c, flags=CONTRACT)

    return a(a, a, a), generate


# Typed by hand: an intrinsic's own annotation counts the typing context among its arguments.
row_gradient: Any = intrinsic(_row_gradient)
row_total: Any = intrinsic(_row_total)
read_real: Any = intrinsic(_read_real)
write_real: Any = intrinsic(_write_real)
multiply_add: Any = intrinsic(_multiply_add)
