"""Options that every benchmark has."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from sparserl.bench.threads import available_cpus, check_threads
from sparserl.errors import ConfigError, unknown_name
from sparserl.ranges import Repeats, Seed, Workers, check_ranges
from sparserl.written_files import check_writable

Record = dict[str, Any]
"""What a benchmark found: numbers, texts, lists and dicts, ready for JSON."""


@dataclass(frozen=True)
class Options:
    """Options of every benchmark.

    Raises:
        ConfigError: If a number is out of range, or what is to be written cannot be: before anything is measured.
    """

    threads: tuple[Workers, ...] = field(default_factory=lambda: tuple(range(1, min(2, len(available_cpus())) + 1)))
    """Numbers of CPU threads."""
    rounds: Repeats = 10
    """Measurements of each contender; medians and quartiles are over them."""
    seed: Seed = 0
    """Root seed."""
    json: Path | None = None
    """File for everything that was measured."""
    plot: Path | None = None
    """Picture to write; the ending decides the format."""
    progress: bool = True
    """Draw progress bars."""

    def __post_init__(self) -> None:
        check_ranges(self, "--")
        self.check_given("threads")
        for threads in self.threads:
            check_threads(threads)
        for path in (self.json, self.plot):
            check_writable(path)
        endings = Figure().canvas.get_supported_filetypes()
        if self.plot is not None and self.plot.suffix.removeprefix(".") not in endings:
            raise ConfigError(unknown_name("kind of picture", self.plot.suffix.removeprefix("."), endings))

    def check_given(self, *names: str) -> None:
        """Raises ConfigError if a field that holds numbers has none."""
        for name in names:
            if not getattr(self, name):
                raise ConfigError(f"--{name} needs a number")
