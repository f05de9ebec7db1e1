"""The inner loops as LLVM vector code: what Numba's own vectoriser leaves slow.

All of them work on one *tile*: `vectors * LANES` columns (samples) of every neuron, contiguous, one row of that length
for each neuron. `row_tile` keeps a row of the product in registers while it walks the row's connections, so that a
connection costs one load and one multiply-add per vector and no store. `gradient_tile` forms the inner products of
several connections with one row at once and folds the sums of all of them together, which takes a fraction of the
shuffles that one sum after the other takes.

Memory is passed as addresses (int64), the element type by a witness argument. The code suits any float type and any CPU
that LLVM knows: a vector of 16 is split where registers are narrower.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sparserl.kernels.compiled import compiled

LANES = 16
"""Floats a vector: one AVX-512 register of float32."""
WIDTHS = (1, 2, 3)
"""Vectors that a tile may be wide."""
UNROLL = 2
"""Connections a turn of the loop over a row."""

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_CONTRACT = ("contract",)


class _Emitter:
    """Builder of vector code for one element type."""

    def __init__(self, context: Any, builder: Any, element: Any):
        self.builder = builder
        self.real = context.get_value_type(element)
        self.vector = ir.VectorType(self.real, LANES)
        self._align = self.real.get_abi_alignment(context.target_data)

    def pointer(self, address: Any, element: Any = None) -> Any:
        return self.builder.inttoptr(address, (element or self.real).as_pointer())

    def at(self, pointer: Any, index: Any) -> Any:
        return self.builder.gep(pointer, [index if not isinstance(index, int) else ir.Constant(_I64, index)])

    def splat(self, scalar: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
        return self.shuffle(first, undefined, [0] * LANES)

    def load(self, pointer: Any, lanes: int = LANES) -> Any:
        loaded = self.builder.load(self.builder.bitcast(pointer, ir.VectorType(self.real, lanes).as_pointer()))
        loaded.align = self._align
        return loaded

    def store(self, value: Any, pointer: Any) -> None:
        stored = self.builder.store(value, self.builder.bitcast(pointer, value.type.as_pointer()))
        stored.align = self._align

    def row(self, pointer: Any, vectors: int) -> list[Any]:
        return [self.load(self.at(pointer, place * LANES)) for place in range(vectors)]

    def multiply_add(self, a: Any, b: Any, accumulator: Any) -> Any:
        return self.builder.fadd(self.builder.fmul(a, b, flags=_CONTRACT), accumulator, flags=_CONTRACT)

    def shuffle(self, a: Any, b: Any, order: list[int]) -> Any:
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(order)), order))

    def neuron(self, col: Any, slot: Any, rows: Any, vectors: int) -> Any:
        """Row of the tile that connection `slot` reads."""
        neuron = self.builder.zext(self.builder.load(self.at(col, slot)), _I64)
        return self.at(rows, self.builder.mul(neuron, ir.Constant(_I64, vectors * LANES)))

    def loop(self, start: Any, stop: Any, step: int, initial: list[Any], body: Any) -> list[Any]:
        """`for i in range(start, stop, step): values = body(i, values)`; returns the last values."""
        builder, before = self.builder, self.builder.block
        head, inside, after = (builder.append_basic_block(name) for name in ("head", "inside", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(_I64)
        index.add_incoming(start, before)
        values = []
        for value in initial:
            phi = builder.phi(value.type)
            phi.add_incoming(value, before)
            values.append(phi)
        builder.cbranch(builder.icmp_signed("<", index, stop), inside, after)
        builder.position_at_end(inside)
        for phi, value in zip(values, body(index, values), strict=True):
            phi.add_incoming(value, builder.block)
        index.add_incoming(builder.add(index, ir.Constant(_I64, step)), builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return values

    def by_width(self, vectors: Any, body: Callable[[int], Any]) -> Any:
        """`body` for each width of a tile, of which the one that `vectors` names at run time is run; its value, if any.

        Numba does not store the machine code of functions that close over intrinsics, so a function cannot be made for
        each width.
        """
        builder = self.builder
        after = builder.append_basic_block("after")
        unreachable = builder.append_basic_block("no_such_width")
        switch = builder.switch(vectors, unreachable)
        values = []
        for width in WIDTHS:
            block = builder.append_basic_block(f"width_{width}")
            switch.add_case(ir.Constant(_I64, width), block)
            builder.position_at_end(block)
            values.append((body(width), builder.block))
            builder.branch(after)
        builder.position_at_end(unreachable)
        builder.unreachable()
        builder.position_at_end(after)
        if values[0][0] is None:
            return None
        chosen = builder.phi(values[0][0].type)
        for value, block in values:
            chosen.add_incoming(value, block)
        return chosen

    def folded(self, vectors: list[Any]) -> Any:
        """The sum over the lanes of each of the vectors; `_lanes_of` tells where each sum ends up."""
        for half in _HALVES:
            low, high = _fold_order(half)
            pairs = list(zip(vectors[::2], vectors[1::2], strict=True)) if len(vectors) > 1 else [(vectors[0],) * 2]
            vectors = [self.builder.fadd(self.shuffle(a, b, low), self.shuffle(a, b, high)) for a, b in pairs]
        return vectors[0]


_HALVES = [LANES >> level for level in range(1, LANES.bit_length())]


def _fold_order(half: int) -> tuple[list[int], list[int]]:
    """Lanes of two joined vectors whose sums fold segments of `2 * half` lanes to `half`.

    Segments shorter than four lanes are taken in turns within groups of four, where a shuffle is one instruction.
    """
    if half >= 4:
        low = [start + lane for start in range(0, 2 * LANES, 2 * half) for lane in range(half)]
    else:
        low = [
            vector + group + start + lane
            for group in range(0, LANES, 4)
            for vector in (0, LANES)
            for start in range(0, 4, 2 * half)
            for lane in range(half)
        ]
    return low, [lane + half for lane in low]


def _lanes_of(count: int) -> list[int]:
    """Lane in which `folded` leaves the sum of each of `count` vectors, found by folding names."""
    named = [[place] * LANES for place in range(count)]
    for half in _HALVES:
        low, _ = _fold_order(half)
        pairs = zip(named[::2], named[1::2], strict=True) if len(named) > 1 else [(named[0], named[0])]
        named = [[(a + b)[lane] for lane in low] for a, b in pairs]
    return [named[0].index(place) for place in range(count)]


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
        emit = _Emitter(context, builder, signature.args[5])
        value_data, col_data = emit.pointer(values), emit.pointer(col, _I32)
        x_data, out_data = emit.pointer(x), emit.pointer(out)
        whole = builder.add(start, builder.and_(builder.sub(stop, start), ir.Constant(_I64, -UNROLL)))
        limit = emit.splat(threshold)
        zero = ir.Constant(emit.vector, [0.0] * LANES)

        def row_of(width: int) -> None:
            def connection(slot: Any, sums: list[Any]) -> list[Any]:
                value = emit.splat(builder.load(emit.at(value_data, slot)))
                row = emit.row(emit.neuron(col_data, slot, x_data, width), width)
                return [emit.multiply_add(value, entry, total) for entry, total in zip(row, sums, strict=True)]

            def turn(slot: Any, sums: list[Any]) -> list[Any]:
                for offset in range(UNROLL):
                    sums = connection(builder.add(slot, ir.Constant(_I64, offset)), sums)
                return sums

            sums = emit.loop(start, whole, UNROLL, [emit.splat(bias)] * width, turn)
            sums = emit.loop(whole, stop, 1, sums, connection)
            for place, total in enumerate(sums):
                if gated:
                    gate = emit.load(emit.at(emit.pointer(gates[0]), place * LANES))
                    total = builder.select(builder.fcmp_ordered("<=", gate, limit), zero, total)
                else:
                    total = builder.select(builder.fcmp_ordered("<", total, limit), limit, total)
                emit.store(total, emit.at(out_data, place * LANES))

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


def gradient_tile(count: int) -> Any:
    """Makes a Numba function that adds to `count` consecutive entries of a gradient their inner products over a tile.

    Its arguments: width of the tile in vectors, address of the columns, first slot, address of the tile `x`, address of
    the row of `dy`, address of the gradient, and a witness of the element type.
    """
    ends_in = _lanes_of(count)
    # Connection c is folded from the place whose sum ends in the c-th of the lanes that are used.
    places = sorted(range(count), key=ends_in.__getitem__)
    lanes = [ends_in[place] for place in places]

    @intrinsic
    def products(
        typing_context: Any, vectors: Any, col: Any, slot: Any, x: Any, dy: Any, out: Any, witness: Any
    ) -> Any:
        del typing_context, vectors, col, slot, x, dy, out
        size = types.intp
        signature = types.void(size, size, size, size, size, size, witness)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vectors, col, slot, x, dy, out, _ = arguments
            emit = _Emitter(context, builder, signature.args[6])
            col_data, x_data = emit.pointer(col, _I32), emit.pointer(x)
            target = emit.at(emit.pointer(out), slot)

            def products_of(width: int) -> None:
                gradient = emit.row(emit.pointer(dy), width)
                sums = [None] * count
                for connection, place in enumerate(places):
                    at = builder.add(slot, ir.Constant(_I64, connection))
                    first, *others = emit.row(emit.neuron(col_data, at, x_data, width), width)
                    total = builder.fmul(gradient[0], first)
                    for factor, entry in zip(gradient[1:], others, strict=True):
                        total = emit.multiply_add(factor, entry, total)
                    sums[place] = total
                folded = emit.folded(sums)
                emit.store(builder.fadd(emit.load(target, count), emit.shuffle(folded, folded, lanes)), target)

            emit.by_width(vectors, products_of)
            return context.get_dummy_value()

        return signature, generate

    return products


def _row_total(typing_context: Any, vectors: Any, row: Any, witness: Any) -> Any:
    """Sum of a row of a tile; arguments: width of the tile in vectors, address of the row, a witness of its type."""
    del typing_context, vectors, row

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors, row, _ = arguments
        emit = _Emitter(context, builder, signature.args[2])

        def total_of(width: int) -> Any:
            first, *others = emit.row(emit.pointer(row), width)
            for other in others:
                first = builder.fadd(first, other)
            return builder.extract_element(emit.folded([first]), ir.Constant(_I32, 0))

        return emit.by_width(vectors, total_of)

    return witness(types.intp, types.intp, witness), generate


def _read_real(typing_context: Any, address: Any, index: Any, witness: Any) -> Any:
    """Entry `index` of the float array at an address."""
    del typing_context, address, index

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, signature.args[2])
        return builder.load(emit.at(emit.pointer(arguments[0]), arguments[1]))

    return witness(types.intp, types.intp, witness), generate


def _write_real(typing_context: Any, address: Any, index: Any, value: Any, witness: Any) -> Any:
    """Sets entry `index` of the float array at an address; the value is converted to the type of the witness."""
    del typing_context, address, index, value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, signature.args[3])
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
            return entry if bits == 64 else builder.zext(entry, _I64)

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
        return builder.fadd(builder.fmul(a, b, flags=_CONTRACT), c, flags=_CONTRACT)

    return a(a, a, a), generate


# Typed by hand: an intrinsic's own annotation counts the typing context among its arguments.
row_total: Any = intrinsic(_row_total)
read_real: Any = intrinsic(_read_real)
write_real: Any = intrinsic(_write_real)
multiply_add: Any = intrinsic(_multiply_add)
