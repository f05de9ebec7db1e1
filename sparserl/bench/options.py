"""Options that every benchmark has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from sparserl.bench.threads import available_cpus, check_threads
from sparserl.errors import ConfigError, unknown_name
from sparserl.topology.density import check_density

Record = dict[str, Any]
"""What a benchmark found: numbers, texts, lists and dicts, ready for JSON."""


@dataclass(frozen=True)
class Options:
    """Options of every benchmark.

    Raises:
        ConfigError: If a number is out of range, or what is to be written cannot be: before anything is measured.
    """

    threads: tuple[int, ...] = field(default_factory=lambda: tuple(range(1, min(2, len(available_cpus())) + 1)))
    """Numbers of CPU threads."""
    rounds: int = 10
    """Measurements of each contender; medians and quartiles are over them."""
    seed: int = 0
    """Root seed."""
    json: Path | None = None
    """File for everything that was measured."""
    plot: Path | None = None
    """Picture to write; the ending decides the format."""
    progress: bool = True
    """Draw progress bars."""

    def __post_init__(self) -> None:
        for threads in self.threads:
            check_threads(threads)
        self.check_positive("rounds", "threads")
        if not 0 <= self.seed < 2**32:  # NumPy's global generator takes no more
            raise ConfigError(f"--seed must be in [0, 2**32), got {self.seed}")
        for path in (self.json, self.plot):
            if path is not None and not path.parent.is_dir():
                raise ConfigError(f"cannot write {path}: there is no folder {path.parent}")
            if path is not None and path.is_dir():
                raise ConfigError(f"cannot write {path}: it is a folder")
        endings = Figure().canvas.get_supported_filetypes()
        if self.plot is not None and self.plot.suffix.removeprefix(".") not in endings:
            raise ConfigError(unknown_name("kind of picture", self.plot.suffix.removeprefix("."), endings))

    def check_grid(self, densities: Sequence[float], *names: str) -> None:
        """Raises ConfigError, or TopologyError for a density, unless fields and densities are positive and in range."""
        self.check_positive("densities", *names)
        for density in densities:
            check_density(density)

    def check_positive(self, *names: str) -> None:
        """Raises ConfigError unless each field is a positive number, or some positive numbers."""
        for name in names:
            value = getattr(self, name)
            numbers = value if isinstance(value, tuple) else (value,)
            bad = next((number for number in numbers if not number > 0), None)
            if bad is not None or not numbers:
                flag = "--" + name.replace("_", "-")
                raise ConfigError(f"{flag} must be positive, got {bad}" if numbers else f"{flag} needs a number")
