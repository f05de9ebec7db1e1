"""Two inner loops as LLVM vector code: what Numba's own vectoriser leaves slow.

`row_tile(n)` keeps n vectors of a row's output in registers while it walks the row's connections, so that a connection
costs one load and one multiply-add per vector and no store. `inner_products(n)` forms n inner products over the batch
at once, with one pass over the shared operand. Both work for any float type and any CPU that LLVM knows: a vector of 16
is split where registers are narrower.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 16
"""Floats a vector: one AVX-512 register of float32."""

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_CONTRACT = ("contract",)


def _tuple(element: Any, count: int) -> Any:
    return types.UniTuple(element, count)  # type: ignore[no-untyped-call]  # Numba leaves its types unannotated


class _Emitter:
    """Builder of vector code for one element type."""

    def __init__(self, context: Any, builder: Any, element: Any, lanes: int):
        self.context, self.builder, self.lanes = context, builder, lanes
        self.real = context.get_value_type(element)
        self.vector = ir.VectorType(self.real, lanes)

    def data(self, array_type: Any, value: Any) -> Any:
        """Pointer to the first element of an array argument."""
        return self.context.make_array(array_type)(self.context, self.builder, value).data

    def splat(self, scalar: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
        order = ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, order)

    def load(self, pointer: Any) -> Any:
        loaded = self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()))
        loaded.align = self.real.get_abi_alignment(self.context.target_data)
        return loaded

    def store(self, value: Any, pointer: Any) -> None:
        stored = self.builder.store(value, self.builder.bitcast(pointer, self.vector.as_pointer()))
        stored.align = self.real.get_abi_alignment(self.context.target_data)

    def multiply_add(self, a: Any, b: Any, accumulator: Any) -> Any:
        return self.builder.fadd(self.builder.fmul(a, b, flags=_CONTRACT), accumulator, flags=_CONTRACT)

    def at(self, pointer: Any, index: Any) -> Any:
        return self.builder.gep(pointer, [index if not isinstance(index, int) else ir.Constant(_I64, index)])

    def total(self, vector: Any) -> Any:
        """Sum of the lanes, by halving: one order on every machine."""
        width = self.lanes
        while width > 1:
            half = width // 2
            undefined = ir.Constant(ir.VectorType(self.real, width), ir.Undefined)
            halves = [
                self.builder.shuffle_vector(vector, undefined, ir.Constant(ir.VectorType(_I32, half), list(lanes)))
                for lanes in (range(half), range(half, width))
            ]
            vector, width = self.builder.fadd(*halves), half
        return self.builder.extract_element(vector, ir.Constant(_I32, 0))

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


def row_tile(vectors: int, lanes: int = LANES) -> Any:
    """Makes a Numba function that computes `vectors * lanes` columns of one row of `bias + W x`.

    Its arguments: values, col, first and past-the-last slot of the row, bias of the row, x (flat), batch, first column
    of the tile, out (flat), position of the tile in out.
    """

    @intrinsic
    def tile(
        typing_context: Any,
        values: Any,
        col: Any,
        start: Any,
        stop: Any,
        bias: Any,
        x: Any,
        batch: Any,
        column: Any,
        out: Any,
        position: Any,
    ) -> Any:
        del typing_context, start, stop, bias, batch, column, position
        size = types.intp
        signature = types.void(values, col, size, size, values.dtype, x, size, size, out, size)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            values, col, start, stop, bias, x, batch, column, out, position = arguments
            emit = _Emitter(context, builder, signature.args[0].dtype, lanes)
            value_data, col_data = emit.data(signature.args[0], values), emit.data(signature.args[1], col)
            x_data = emit.at(emit.data(signature.args[5], x), column)
            out_data = emit.at(emit.data(signature.args[8], out), position)

            def connection(slot: Any, sums: list[Any]) -> list[Any]:
                value = emit.splat(builder.load(emit.at(value_data, slot)))
                neuron = builder.zext(builder.load(emit.at(col_data, slot)), _I64)
                row = emit.at(x_data, builder.mul(neuron, batch))
                return [
                    emit.multiply_add(value, emit.load(emit.at(row, place * lanes)), total)
                    for place, total in enumerate(sums)
                ]

            sums = emit.loop(start, stop, 1, [emit.splat(bias)] * vectors, connection)
            for place, total in enumerate(sums):
                emit.store(total, emit.at(out_data, place * lanes))
            return context.get_dummy_value()

        return signature, generate

    return tile


def inner_products(count: int, lanes: int = LANES) -> Any:
    """Makes a Numba function that returns `count` inner products over the batch as a tuple.

    Its arguments: x (flat), a tuple of `count` starts in x, dy (flat), start in dy, batch.
    """

    @intrinsic
    def products(typing_context: Any, x: Any, starts: Any, dy: Any, start: Any, batch: Any) -> Any:
        del typing_context, starts, start, batch
        size = types.intp
        signature = _tuple(dy.dtype, count)(x, _tuple(size, count), dy, size, size)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            x, starts, dy, start, batch = arguments
            emit = _Emitter(context, builder, signature.args[2].dtype, lanes)
            x_data = emit.data(signature.args[0], x)
            rows = [emit.at(x_data, builder.extract_value(starts, place)) for place in range(count)]
            dy_data = emit.at(emit.data(signature.args[2], dy), start)
            whole = builder.and_(batch, ir.Constant(_I64, -lanes))

            def vectors(column: Any, sums: list[Any]) -> list[Any]:
                gradient = emit.load(emit.at(dy_data, column))
                return [
                    emit.multiply_add(gradient, emit.load(emit.at(row, column)), total)
                    for row, total in zip(rows, sums, strict=True)
                ]

            def scalars(column: Any, sums: list[Any]) -> list[Any]:
                gradient = builder.load(emit.at(dy_data, column))
                return [
                    emit.multiply_add(gradient, builder.load(emit.at(row, column)), total)
                    for row, total in zip(rows, sums, strict=True)
                ]

            zero = ir.Constant(emit.vector, [0.0] * lanes)
            in_lanes = emit.loop(ir.Constant(_I64, 0), whole, lanes, [zero] * count, vectors)
            totals = emit.loop(whole, batch, 1, [emit.total(total) for total in in_lanes], scalars)
            return context.make_tuple(builder, signature.return_type, totals)

        return signature, generate

    return products
