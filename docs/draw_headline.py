"""Return against CPU seconds and against parameters, of finished runs of `sparserl train`: the picture of the README.

    python docs/draw_headline.py RUNS --out docs/headline.png

`RUNS` holds run folders that differ in env, agent, density and seed alone; each has one thread. A column for each env:
above, learning curves over CPU seconds; below, the last evaluation against the parameters that exist.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib import rc_context
from matplotlib.figure import Figure

from sparserl.metrics.bootstrap import band, resample
from sparserl.metrics.statistics import LEVEL_PERCENT
from sparserl.plots.curves import spent
from sparserl.plots.style import STYLE, Run, add_legend, draw_curves, line_styles, write_figure
from sparserl.recording.run_logs import Curve, evaluation_curve, read_columns
from sparserl.seeding import stream


def runs_in(folder: Path) -> dict[str, list[Run]]:
    """Finished runs by env; a label is what tells agents apart."""
    found: dict[str, list[Run]] = {}
    for path in sorted(folder.glob("*/result.json")):
        config = yaml.safe_load((path.parent / "config.yaml").read_text())
        found.setdefault(config["env"], []).append(Run(path.parent, label(config)))
    return {env: sorted(runs, key=lambda run: -parameters(run)) for env, runs in found.items()}


def label(config: dict[str, Any]) -> str:
    """Name of an agent: its algorithm, and the density of its networks."""
    algorithm, topology = str(config["algo"]).upper().replace("_", "-"), config["topology"]
    if topology["method"] == "dense":
        return f"{algorithm}, dense"
    density = topology.get("density")
    return f"{algorithm}, the paper's densities" if density is None else f"{algorithm}, density {density:g}"


def cpu_curves(runs: list[Run]) -> dict[Run, Curve]:
    """Return of each evaluation of some seeds, over the CPU seconds that they had taken by then in the mean."""
    curves = {run: evaluation_curve(run.path) for run in runs}
    seconds = []
    for run, (steps, _) in curves.items():
        seconds.append(spent(read_columns(run.path / "progress.csv"), "cpu", steps))
    return {run: (np.mean(seconds, axis=0), returns) for run, (_, returns) in curves.items()}


def parameters(run: Run) -> int:
    """Connections and biases of actor and critics at the end."""
    return int(json.loads((run.path / "result.json").read_text())["params_nonzero"])


def last_return(run: Run) -> float:
    """Mean over the episodes of the last evaluation."""
    return float(json.loads((run.path / "result.json").read_text())["return_last"])


def draw(by_env: dict[str, list[Run]], out: Path) -> None:
    """Writes the picture."""
    groups = line_styles(run.label for runs in by_env.values() for run in runs)
    with rc_context(STYLE):
        figure = Figure(figsize=(3.6 * len(by_env) + 0.4, 5.6), layout="constrained")
        panels = figure.subplots(2, len(by_env), squeeze=False)
        for (env, runs), (above, below) in zip(by_env.items(), panels.T, strict=True):
            sizes = []
            for name, style in groups.items():
                own = [run for run in runs if run.label == name]
                draw_curves(above, cpu_curves(own), name, style)
                size = np.mean([parameters(run) for run in own])
                y = np.array([last_return(run) for run in own])
                below.plot([size] * len(y), y, style.marker, color=style.colour, alpha=0.35, markeredgewidth=0)
                (low,), (high,) = band(
                    y[resample(len(y), stream(0, "headline", env, name))].mean(axis=1)[:, None], LEVEL_PERCENT
                )
                below.errorbar(
                    [size], [y.mean()], [[y.mean() - low], [high - y.mean()]],
                    marker=style.marker, color=style.colour, capsize=3, markersize=7,
                )  # fmt: skip
                sizes.append(size)
            above.set_title(env)
            above.set_xlabel("CPU seconds, one thread")
            below.set_xlabel("parameters")
            below.set_xscale("log")
            below.set_xlim(min(sizes) / 1.5, max(sizes) * 1.5)
            below.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
            below.minorticks_off()
            below.set_ylim(bottom=min(0.0, below.get_ylim()[0]))
        panels[0, 0].set_ylabel("return")
        panels[1, 0].set_ylabel("return of the last evaluation")
        add_legend(figure, list(panels[0]), f"mean over n seeds, {LEVEL_PERCENT} % bootstrap interval")
        write_figure(figure, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="folder that holds run folders")
    parser.add_argument("--out", type=Path, default=Path("headline.png"))
    given = parser.parse_args()
    draw(runs_in(given.runs), given.out)
