"""How much memory the machine has, and whether what is about to be made fits into it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path

from sparserl.errors import ConfigError

LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux says what a container may use, in its two versions."""
MEMINFO = Path("/proc/meminfo")
DENSE_BYTES, SPARSE_BYTES = 20, 40
"""Of a connection while it is trained: weight, gradient, two moments, target; with indices in both orders if sparse."""


def memory_bytes() -> int | None:
    """Bytes of memory and swap that processes of this machine, or container, can have; None where that is unknown."""
    limits = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in MEMINFO.read_text().splitlines()}
        limits.append(1024 * (sizes["MemTotal"] + sizes.get("SwapTotal", 0)))
    for path in LIMITS:
        with contextlib.suppress(OSError, ValueError):  # `max` is no limit
            limits.append(int(path.read_text()))
    return min(limits, default=None)


def free_memory_bytes() -> int | None:
    """Bytes of memory that are not in use; None where that is unknown. In a container, of the machine."""
    with contextlib.suppress(OSError, ValueError, IndexError, KeyError):
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in MEMINFO.read_text().splitlines()}
        return 1024 * sizes["MemAvailable"]
    return None


def check_fits(parts: Mapping[str, float]) -> None:
    """Raises ConfigError, with the estimate, if what is about to be made is larger than the memory of the machine.

    Args:
        parts: What is made, with the option that decides its size -> bytes, estimated.
    """
    has, needs = memory_bytes(), sum(parts.values())
    if has is not None and needs > has:
        largest = max(parts, key=lambda name: parts[name])
        raise ConfigError(
            f"this would take about {in_words(needs)} of memory, {in_words(parts[largest])} of it for {largest}, and "
            f"the machine has {in_words(has)}"
        )


def in_words(size: float) -> str:
    """A number of bytes in the unit that fits."""
    units = ("bytes", "kB", "MB", "GB", "TB", "PB")
    power = min(int(math.log10(max(size, 1.0)) // 3), len(units) - 1)
    return f"{size / 1000**power:.3g} {units[power]}"
