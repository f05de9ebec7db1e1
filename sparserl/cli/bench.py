"""`sparserl bench`: time and memory of sparse networks beside dense ones."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from sparserl.bench.figures import kernel_figure, return_figure, scale_figure, update_figure
from sparserl.bench.options import QUICK, KernelOptions, Options, Record, ReturnOptions, ScaleOptions, UpdateOptions
from sparserl.bench.tables import kernel_tables, return_tables, scale_tables, update_tables
from sparserl.bench.threads import available_cpus
from sparserl.cli.arguments import parse
from sparserl.config import plain
from sparserl.errors import ConfigError, unknown_name
from sparserl.experiment.program import load
from sparserl.json_text import json_text
from sparserl.plots.style import write_figure
from sparserl.report.text import print_whole
from sparserl.written_files import write_text


@dataclass(frozen=True)
class Benchmark:
    """A benchmark of the command line.

    Attributes:
        options: Its schema.
        measure: From options to what was found, with `failed` if something failed; what it needs is imported when it is
            called.
        tables: What is printed of that.
        figure: What is drawn of it.
        summary: One line for `sparserl bench --help`.
    """

    options: type[Options]
    measure: Callable[[Any], Record]
    tables: Callable[[Record], list[Table]]
    figure: Callable[[Record], Figure]
    summary: str


def _in_module(name: str, function: str) -> Callable[[Any], Record]:
    """A function of a module that takes seconds to import."""
    return lambda options: getattr(load(name), function)(options)


BENCHMARKS = {
    "update": Benchmark(
        UpdateOptions,
        _in_module("sparserl.bench.update", "measure_update"),
        update_tables,
        update_figure,
        "gradient updates and env steps, against dense TD3, SAC, masks and SBX",
    ),
    "kernels": Benchmark(
        KernelOptions,
        _in_module("sparserl.bench.kernels", "measure_kernels"),
        kernel_tables,
        kernel_figure,
        "products of a layer, against the best dense",
    ),
    "scale": Benchmark(
        ScaleOptions,
        _in_module("sparserl.bench.scale", "measure_scale"),
        scale_tables,
        scale_figure,
        "an update, up to a million hidden neurons",
    ),
    "return": Benchmark(
        ReturnOptions,
        _in_module("sparserl.bench.returns", "measure_return"),
        return_tables,
        return_figure,
        "seconds of training until a return is passed, against TD3, SAC and CrossQ",
    ),
}


def usage() -> str:
    """The help text of `sparserl bench`."""
    lines = [f"  {name:<7} {benchmark.summary}" for name, benchmark in BENCHMARKS.items()]
    return "usage: sparserl bench KIND [options]\n\nkinds:\n" + "\n".join(lines)


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl bench`; returns the exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    name, *rest = arguments
    if name not in BENCHMARKS:
        raise ConfigError(unknown_name("benchmark", name, BENCHMARKS))
    benchmark = BENCHMARKS[name]
    options = _options(benchmark.options, rest, f"bench {name}")
    busy = os.getloadavg()[0]
    print(f"measuring {options.title}", flush=True)
    measured = benchmark.measure(options)
    for table in benchmark.tables(measured):
        print_whole(Console(), table)
    if options.json is not None:
        from sparserl.recording.run_folder import versions  # here, because it imports torch

        record = {
            "benchmark": name,
            "command": shlex.join(["sparserl", "bench", *arguments]),
            "options": plain(options),
            "versions": versions(options.most_threads),
            "cpus_available": len(available_cpus()),
            "load_average_before": busy,
            **measured,
        }
        write_text(options.json, json_text(record, indent=1) + "\n")
        print(f"wrote {options.json}")
    if options.plot is not None:
        write_figure(benchmark.figure(measured), options.plot)
        print(f"wrote {options.plot}")
    return 1 if measured.get("failed") else 0


def _options(schema: type[Options], arguments: Sequence[str], command: str) -> Options:
    """What is asked for; beneath `--quick` lies another grid than without."""
    options = parse(schema, arguments, command=command)
    if isinstance(options, UpdateOptions) and options.quick:
        return parse(UpdateOptions, arguments, command=command, below=QUICK)
    return options
