"""What follows the sums of a layer inside a tile, and the way back through it: part of the CPU backend."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from numba import types
from numba.extending import overload

from sparserl.kernels.compiled import compiled
from sparserl.kernels.vector import array_at

BOUND = 7.90531110763549805
"""Beyond it tanh is 1 in float32."""
NUMERATOR = (
    4.89352455891786e-03,
    6.37261928875436e-04,
    1.48572235717979e-05,
    5.12229709037114e-08,
    -8.60467152213735e-11,
    2.00018790482477e-13,
    -2.76076847742355e-16,
)
DENOMINATOR = (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)
"""Of a rational function that is tanh in float32 but for 3.5e-7: coefficients of x, x^3, ... over those of 1, x^2, ...
They are those of Eigen and of XLA."""


def tanh(x: float) -> float:
    """Of a number; in float32 a rational function, which loops take many at a time."""
    return math.tanh(x)


@overload(tanh)
def _tanh_of_type(x: Any) -> Callable[[Any], Any]:
    a0, a1, a2, a3, a4, a5, a6 = map(types.float32, NUMERATOR)
    b0, b1, b2, b3 = map(types.float32, DENOMINATOR)
    low, high = types.float32(-BOUND), types.float32(BOUND)

    def exact(x: Any) -> Any:
        return math.tanh(x)

    def rational(x: Any) -> Any:
        x = low if x < low else high if x > high else x
        s = x * x
        p = (((((a6 * s + a5) * s + a4) * s + a3) * s + a2) * s + a1) * s + a0
        return x * p / (((b3 * s + b2) * s + b1) * s + b0)

    return rational if x == types.float32 else exact


@compiled(error_model="numpy")
def tanh_tile(tile: int, neurons: int, columns: int, zero: Any) -> None:
    """Puts tanh in place of each number of a tile; NaN passes."""
    y = array_at(tile, (neurons * columns,), zero)
    for entry in range(y.size):
        y[entry] = tanh(y[entry])


@compiled()
def through_tanh_tile(level: int, neurons: int, columns: int, dy: int, zero: Any) -> None:
    """Makes the gradient by what tanh was taken of, in place, of that by the level, which tanh gave."""
    y, gradient = array_at(level, (neurons * columns,), zero), array_at(dy, (neurons * columns,), zero)
    one = type(zero)(1)
    for entry in range(y.size):
        gradient[entry] *= one - y[entry] * y[entry]


@compiled()
def gate_tile(level: int, neurons: int, columns: int, dy: int, zero: Any) -> None:
    """Sets a gradient to 0 where the level, the output of a ReLU, is not above 0; NaN passes."""
    y, gradient = array_at(level, (neurons * columns,), zero), array_at(dy, (neurons * columns,), zero)
    for entry in range(y.size):
        if y[entry] <= zero:
            gradient[entry] = zero
