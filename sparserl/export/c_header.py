"""A policy as one C header: static arrays of its connections, and a function that acts."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from sparserl.errors import ConfigError
from sparserl.export.layers import PolicyLayer, PolicyNorm
from sparserl.export.policy import ExportedPolicy

PER_LINE = 10
UNSIGNED = {np.dtype(np.uint8): "uint8_t", np.dtype(np.uint16): "uint16_t", np.dtype(np.uint32): "uint32_t"}


@dataclass(frozen=True)
class CHeader:
    """C source.

    Attributes:
        text: The header; C99, needs <math.h> and <stdint.h>, allocates nothing.
        function: Its prototype, `void name(const float *observation, float *action)`; of discrete actions `int
            name(const float *observation)`.
        bytes_data: Memory of the static arrays.
    """

    text: str
    function: str
    bytes_data: int


KEYWORDS = (
    "auto break case char const continue default do double else enum extern float for goto if inline int "
    "long register restrict return short signed sizeof static struct switch typedef union unsigned void volatile while"
)
"""Of C99, which are no identifiers."""
MATH = (
    "acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc exp exp2 expm1 fabs fdim floor fma "
    "fmax fmin fmod frexp hypot ilogb ldexp lgamma llrint llround log log10 log1p log2 logb lrint lround modf nan "
    "nearbyint nextafter nexttoward pow remainder remquo rint round scalbln scalbn sin sinh sqrt tan tanh tgamma trunc"
)
"""Functions of C99's math.h, which the header includes; those of float and long double end with f and l."""
MACROS = "fpclassify isfinite isinf isnan isnormal signbit HUGE_VAL INFINITY NAN"
"""Of the same."""


def c_header(policy: ExportedPolicy, name: str = "policy") -> CHeader:
    """Writes a policy as C.

    Indices take the smallest unsigned type that holds them; a layer in which every connection exists has none.

    Args:
        policy: The policy.
        name: C identifier, the prefix of everything in the header.

    Raises:
        ConfigError: If `name` is no identifier or one of the headers that are included, or the policy reads images.
    """
    if policy.images is not None:
        raise ConfigError("a policy that reads images is not written as C; take --format onnx or safetensors")
    if not re.fullmatch(r"[A-Za-z_]\w*", name) or name in KEYWORDS.split():
        raise ConfigError(f"--name must be a C identifier, got {name!r}")
    if re.fullmatch(rf"({MATH.replace(' ', '|')})[fl]?|{MACROS.replace(' ', '|')}|u?int\d+_t", name):
        raise ConfigError(f"--name {name} is already a name of math.h or stdint.h; take policy_{name}")
    arrays: dict[str, np.ndarray] = policy.ranges
    outputs = "action" if policy.ranges else "value"
    calls = []
    for index, layer in enumerate(policy.layers):
        arrays |= {f"{what}{index}": array for what, array in _arrays(layer).items()}
        source, added = _level(index), None if layer.added is None else _level(layer.added)
        target = outputs if index == len(policy.layers) - 1 else f"hidden{index}"
        if layer.norm is not None:
            calls.append(_normed(name, index, layer.norm, layer.n_in, source))
            source = f"normed{index}"
        calls.append(_loop(name, index, layer, source, target, _activated(policy, index), added))
    widest = [f"    float hidden{index}[{layer.n_out}];" for index, layer in enumerate(policy.layers[:-1])]
    widest += [
        f"    float normed{index}[{layer.n_in}];" for index, layer in enumerate(policy.layers) if layer.norm is not None
    ]
    prototype, ending = ENDINGS[policy.ending](name, policy.n_out)
    about = [f" * {key}: {value}" for key, value in policy.about.items()]
    guard = f"{name.upper()}_H"
    text = "\n".join(
        [
            "/* A deterministic policy, written by `sparserl export --format c`.",
            *about,
            f" * {policy.n_in} observations, {policy.n_out} actions, {policy.connections} connections.",
            " */",
            f"#ifndef {guard}",
            f"#define {guard}",
            "#include <math.h>",
            "#include <stdint.h>",
            f"#define {name.upper()}_OBSERVATIONS {policy.n_in}",
            f"#define {name.upper()}_ACTIONS {policy.n_out}",
            "",
            *(_array(f"{name}_{what}", array) for what, array in arrays.items()),
            "",
            f"static {prototype} {{",
            *widest,
            *([] if policy.ranges else [f"    float value[{policy.n_out}];"]),
            *calls,
            *ending,
            "}",
            f"#endif /* {guard} */",
            "",
        ]
    )
    return CHeader(text, prototype, sum(array.nbytes for array in arrays.values()))


def _squashed(name: str, n_out: int) -> tuple[str, list[str]]:
    """Prototype, and how the function ends, where actions in [-1, 1] are scaled to their ranges."""
    scaled = f"{name}_low[i] + 0.5f * (action[i] + 1.0f) * ({name}_high[i] - {name}_low[i])"
    return _in_ranges(name, n_out, scaled)


def _clipped(name: str, n_out: int) -> tuple[str, list[str]]:
    """The same where actions are clipped to their ranges."""
    return _in_ranges(name, n_out, f"fminf(fmaxf(action[i], {name}_low[i]), {name}_high[i])")


def _in_ranges(name: str, n_out: int, expression: str) -> tuple[str, list[str]]:
    ending = [f"    for (int i = 0; i < {n_out}; i++)", f"        action[i] = {expression};"]
    return f"void {name}(const float *observation, float *action)", ending


def _chosen(name: str, n_out: int) -> tuple[str, list[str]]:
    """The same where one of several actions is chosen."""
    ending = [
        "    int best = 0;",
        f"    for (int i = 1; i < {n_out}; i++)",
        "        if (value[i] > value[best])",
        "            best = i;",
        "    return best;",
    ]
    return f"int {name}(const float *observation)", ending


ENDINGS = {"squashed": _squashed, "clipped": _clipped, "chosen": _chosen}
"""By `ExportedPolicy.ending`."""


def _arrays(layer: PolicyLayer) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {"values": layer.values, "bias": layer.bias}
    if layer.row_ptr is not None and layer.col is not None:
        arrays |= {"row_ptr": _smallest(layer.row_ptr), "col": _smallest(layer.col)}
    if layer.norm is not None:
        arrays |= {"scale": layer.norm.scale, "shift": layer.norm.shift}
    return arrays


def _level(number: int) -> str:
    """Array of what layer `number` reads."""
    return "observation" if number == 0 else f"hidden{number - 1}"


def _normed(name: str, index: int, norm: PolicyNorm, n_in: int, source: str) -> str:
    """What stands before a layer."""
    each, scaled = f"        for (int j = 0; j < {n_in}; j++)", f"{name}_scale{index}[j] + {name}_shift{index}[j];"
    if norm.epsilon is None:
        return "\n".join([each[4:], f"        normed{index}[j] = {source}[j] * {scaled}"])
    return "\n".join(
        [
            "    {",
            "        float mean = 0.0f, variance = 0.0f;",
            each,
            f"            mean += {source}[j];",
            f"        mean /= {n_in}.0f;",
            each,
            f"            variance += ({source}[j] - mean) * ({source}[j] - mean);",
            f"        float factor = 1.0f / sqrtf(variance / {n_in}.0f + {_literal(norm.epsilon)});",
            each,
            f"            normed{index}[j] = ({source}[j] - mean) * factor * {scaled}",
            "    }",
        ]
    )


def _smallest(indices: np.ndarray) -> np.ndarray:
    return indices.astype(np.min_scalar_type(int(indices.max(initial=0))))


def _activated(policy: ExportedPolicy, index: int) -> str:
    last = index == len(policy.layers) - 1
    if policy.ending != "squashed" if last else not policy.layers[index].is_activated:
        return "sum"
    return "sum > 0.0f ? sum : 0.0f" if policy.activation == "relu" and not last else "tanhf(sum)"


def _loop(
    name: str, index: int, layer: PolicyLayer, source: str, target: str, activated: str, added: str | None
) -> str:
    values = f"{name}_values{index}"
    if layer.row_ptr is None:
        inner = [
            f"        for (int j = 0; j < {layer.n_in}; j++)",
            f"            sum += {values}[i * {layer.n_in} + j] * {source}[j];",
        ]
    else:
        inner = [
            f"        for (uint32_t k = {name}_row_ptr{index}[i]; k < {name}_row_ptr{index}[i + 1]; k++)",
            f"            sum += {values}[k] * {source}[{name}_col{index}[k]];",
        ]
    return "\n".join(
        [
            f"    for (int i = 0; i < {layer.n_out}; i++) {{",
            f"        float sum = {name}_bias{index}[i];",
            *inner,
            *([] if added is None else [f"        sum += {added}[i];"]),
            f"        {target}[i] = {activated};",
            "    }",
        ]
    )


def _array(name: str, array: np.ndarray) -> str:
    """Floats with nine significant digits, which say a float32 exactly."""
    if array.dtype == np.float32:
        kind, items = "float", [_literal(float(value)) for value in array]
    else:
        kind, items = UNSIGNED[array.dtype], [str(value) for value in array]
    rows = [", ".join(items[start : start + PER_LINE]) for start in range(0, len(items), PER_LINE)]
    # C has no empty arrays.
    return f"static const {kind} {name}[{max(1, len(items))}] = {{\n" + ",\n".join(rows or ["0"]) + "};"


def _literal(value: float) -> str:
    if math.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    text = f"{value:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"
