"""Builder of LLVM vector code: what the intrinsics of `vector` and `patterns` have in common.

Memory is passed as addresses (int64), the element type by a witness argument. The code suits any float type and any CPU
that LLVM knows: vectors that are longer than a register are split.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from sparserl.kernels.choice import REGISTER_BYTES, TILE_VECTORS

LANES = 16
"""Floats a vector: one AVX-512 register of float32."""
WIDTHS = tuple(range(1, TILE_VECTORS + 1))
"""Vectors that a tile may be wide."""

I32, I64 = ir.IntType(32), ir.IntType(64)
CONTRACT = ("contract",)


class Emitter:
    """Builder of vector code for one element type.

    Args:
        context: Numba's.
        builder: llvmlite's.
        element: Numba's type of the elements.
        by_register: Whether a vector is one register long, not `LANES`: LLVM deals better with many of those.
    """

    def __init__(self, context: Any, builder: Any, element: Any, *, by_register: bool = False):
        self.builder = builder
        self.real = context.get_value_type(element)
        self._align = self.real.get_abi_alignment(context.target_data)
        self.lanes = REGISTER_BYTES // self._align if by_register else LANES
        self.vector = ir.VectorType(self.real, self.lanes)

    def pointer(self, address: Any, element: Any = None) -> Any:
        return self.builder.inttoptr(address, (element or self.real).as_pointer())

    def at(self, pointer: Any, index: Any) -> Any:
        return self.builder.gep(pointer, [index if not isinstance(index, int) else ir.Constant(I64, index)])

    def splat(self, scalar: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
        return self.shuffle(first, undefined, [0] * self.lanes)

    def zeros(self) -> Any:
        return ir.Constant(self.vector, [0.0] * self.lanes)

    def load(self, pointer: Any, lanes: int | None = None) -> Any:
        vector = ir.VectorType(self.real, lanes or self.lanes)
        loaded = self.builder.load(self.builder.bitcast(pointer, vector.as_pointer()))
        loaded.align = self._align
        return loaded

    def store(self, value: Any, pointer: Any) -> None:
        stored = self.builder.store(value, self.builder.bitcast(pointer, value.type.as_pointer()))
        stored.align = self._align

    def pointers(self, row: Any, width: int) -> list[Any]:
        """Where the vectors of a row of a tile are."""
        return [self.at(row, lane) for lane in range(0, width * LANES, self.lanes)]

    def row(self, row: Any, width: int) -> list[Any]:
        return [self.load(pointer) for pointer in self.pointers(row, width)]

    def multiply_add(self, a: Any, b: Any, accumulator: Any) -> Any:
        return self.builder.fadd(self.builder.fmul(a, b, flags=CONTRACT), accumulator, flags=CONTRACT)

    def shuffle(self, a: Any, b: Any, order: list[int]) -> Any:
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(order)), order))

    def neuron(self, col: Any, rows: Any, width: int) -> Any:
        """Row of the tile that is named at an index of the columns."""
        neuron = self.builder.zext(self.builder.load(col), I64)
        return self.at(rows, self.builder.mul(neuron, ir.Constant(I64, width * LANES)))

    def repeat(self, cursor: Any, end: Any, step: int, initial: list[Any], body: Any) -> tuple[Any, list[Any]]:
        """`while cursor != end: values = body(cursor, values); cursor += step`; returns the last of both.

        The cursor is a pointer. The test stands at the end and LLVM leaves the loop as it is: bodies that keep many
        sums in registers lose a quarter of their speed otherwise.
        """
        builder, before = self.builder, self.builder.block
        inside, after = builder.append_basic_block("inside"), builder.append_basic_block("after")
        builder.cbranch(builder.icmp_unsigned("!=", cursor, end), inside, after)
        builder.position_at_end(inside)
        entering = [cursor, *initial]
        phis = [builder.phi(value.type) for value in entering]
        leaving = [self.at(phis[0], step), *body(phis[0], phis[1:])]
        branch = builder.cbranch(builder.icmp_unsigned("!=", leaving[0], end), inside, after)
        as_it_is = builder.module.add_metadata([ir.MetaDataString(builder.module, "llvm.loop.unroll.disable")])
        branch.set_metadata("llvm.loop", builder.module.add_metadata([as_it_is]))
        last = builder.block
        for phi, first, following in zip(phis, entering, leaving, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(following, last)
        builder.position_at_end(after)
        cursor, *values = (
            self.either((first, before), (following, last)) for first, following in zip(entering, leaving, strict=True)
        )
        return cursor, values

    def where(self, condition: Any, then: Callable[[], list[Any]], otherwise: Callable[[], list[Any]]) -> list[Any]:
        """The values of one of two functions, of which only that one is run."""
        builder = self.builder
        blocks = [builder.append_basic_block(name) for name in ("then", "otherwise", "after")]
        builder.cbranch(condition, *blocks[:2])
        cases = []
        for block, body in zip(blocks, (then, otherwise), strict=False):
            builder.position_at_end(block)
            cases.append([(value, builder.block) for value in body()])
            builder.branch(blocks[2])
        builder.position_at_end(blocks[2])
        return [self.either(*pair) for pair in zip(*cases, strict=True)]

    def either(self, *cases: tuple[Any, Any]) -> Any:
        """The value of the block that was come from."""
        phi = self.builder.phi(cases[0][0].type)
        for value, block in cases:
            phi.add_incoming(value, block)
        return phi

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
            switch.add_case(ir.Constant(I64, width), block)
            builder.position_at_end(block)
            values.append((body(width), builder.block))
            builder.branch(after)
        builder.position_at_end(unreachable)
        builder.unreachable()
        builder.position_at_end(after)
        if values[0][0] is None:
            return None
        return self.either(*values)

    def finish(self, sums: list[Any], out: Any, width: int, threshold: Any, gates: Any = None) -> None:
        """Stores a row of the product: no entry below the threshold, or 0 where the gate does not exceed it."""
        limit = self.splat(threshold)
        for lane, total in zip(range(0, width * LANES, self.lanes), sums, strict=True):
            if gates is None:
                total = self.builder.select(self.builder.fcmp_ordered("<", total, limit), limit, total)
            else:
                closed = self.builder.fcmp_ordered("<=", self.load(self.at(gates, lane)), limit)
                total = self.builder.select(closed, self.zeros(), total)
            self.store(total, self.at(out, lane))

    def folded(self, vectors: list[Any]) -> Any:
        """The sum over the lanes of each of the vectors; `lanes_of` tells where each sum ends up."""
        for low, high in _fold_orders(self.lanes):
            pairs = list(zip(vectors[::2], vectors[1::2], strict=True)) if len(vectors) > 1 else [(vectors[0],) * 2]
            vectors = [self.builder.fadd(self.shuffle(a, b, low), self.shuffle(a, b, high)) for a, b in pairs]
        return vectors[0]


def _fold_orders(lanes: int) -> list[tuple[list[int], list[int]]]:
    """Lanes of two joined vectors whose sums fold them to one, again and again until a sum is in one lane.

    First within groups of four lanes, where a shuffle is one quick instruction, and most of them are needed.
    """
    orders = []
    for half in (2, 1):
        low = [
            vector + group + start + lane
            for group in range(0, lanes, 4)
            for vector in (0, lanes)
            for start in range(0, 4, 2 * half)
            for lane in range(half)
        ]
        orders.append((low, [lane + half for lane in low]))
    half = lanes // 2
    while half >= 4:
        low = [start + lane for start in range(0, 2 * lanes, 2 * half) for lane in range(half)]
        orders.append((low, [lane + half for lane in low]))
        half //= 2
    return orders


def lanes_of(count: int, lanes: int) -> list[int]:
    """Lane in which `folded` leaves the sum of each of `count` vectors, found by folding names."""
    named = [[number] * lanes for number in range(count)]
    for low, _ in _fold_orders(lanes):
        pairs = zip(named[::2], named[1::2], strict=True) if len(named) > 1 else [(named[0], named[0])]
        named = [[(a + b)[lane] for lane in low] for a, b in pairs]
    return [named[0].index(number) for number in range(count)]
