"""python results/headline/make_table.py [RUNS...]: runs.csv, curves.csv and two pictures beside this file, and tables.

RUNS are folders that the sweep filled. Rows of finished runs that are here already stay, unless RUNS have the run anew;
without RUNS pictures and tables are drawn again from what is here.
"""

import csv
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import yaml
from matplotlib import rc_context

from sparserl.metrics.statistics import aggregates, iqm
from sparserl.plots.style import STYLE, Run, add_legend, draw_curves, line_styles, task_panels, write_figure
from sparserl.recording.run_logs import read_columns, read_rows
from sparserl.report.trained import area, last_10, read_trained_run
from sparserl.seeding import stream

HERE = Path(__file__).parent
KEY = ("env", "method", "seed")
HEAD = (*KEY, "last_10", "area", "passes_dense_at", "parameters", "density", "flops_train", "cpu_s", "energy_kwh")
HEAD = (*HEAD, "explored", "dormant", "fan_in_max", "unread_inputs", "commit")
CURVES = (*KEY, "step", "return", "cpu_s")
ENVS = ("HalfCheetah-v5", "Walker2d-v5", "Hopper-v5", "Ant-v5", "Humanoid-v5")
METHODS = ("TD3", "DS-TD3", "DS-TD3 .1")
PUBLISHED = {
    "HalfCheetah-v5": ("10966", "11436", "11275", "11232", "12047"),
    "Walker2d-v5": ("3957", "5015", "4561", "4534", "6935"),
    "Hopper-v5": ("2993", "3403", "3385", "2691", "4015"),
    "Ant-v5": ("4159", "4818", "5795", "5637", "7411"),
    "Humanoid-v5": ("4017", "5134", "5390", "4814", "10400"),
}
"""After a million steps. On v3 last ten evaluations, read off the curves of Sokar et al. 2022: TD3, DS-TD3, SAC. On v4,
from SimbaV2's files: SAC, SimbaV2."""
OF = ("TD3 (v3)", "DS-TD3 (v3)", "SAC (v3)", "SAC (v4)", "SimbaV2 (v4)")


def method_of(config):
    """What a run is called in the tables."""
    if config["algo"] == "td3":
        return "TD3"
    density = config["topology"]["density"]
    return "DS-TD3" if density is None else f"DS-TD3 {density:g}".replace("0.", ".")


def read(folder):
    """The row of a finished run, and those of its curve."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    key = dict(zip(KEY, (config["env"], method_of(config), str(config["seed"])), strict=True))
    run = read_trained_run(folder, key["method"], config)
    progress = read_columns(folder / "progress.csv")
    cpu = np.interp(run.steps, np.append(0.0, progress["global_step"]), np.append(0.0, progress["cost/cpu_s"]))
    curve = [
        {**key, "step": f"{step:.0f}", "return": f"{value:.1f}", "cpu_s": f"{spent:.0f}"}
        for step, value, spent in zip(run.steps, run.returns, cpu, strict=True)
    ]
    result, last = run.result, {}
    for layer in read_rows(folder / "topology.csv") if config["algo"] != "td3" else []:
        last[layer["layer"]] = layer
    hidden = [float(layer["dormant"]) for name, layer in last.items() if layer.get("dormant")]
    inputs = [layer for name, layer in last.items() if name.endswith(".0")]
    row = {
        **key,
        "last_10": f"{last_10(run.steps, run.returns):.1f}",
        "area": f"{area(run.steps, run.returns):.1f}",
        "parameters": result["params_nonzero"],
        "density": f"{result['density']:.3f}",
        "flops_train": f"{result['flops_train']:.4g}",
        "cpu_s": f"{result['cpu_s']:.0f}",
        "energy_kwh": result.get("energy_kwh", ""),
        "explored": f"{result['explored_fraction']:.3f}" if last else "",
        "dormant": f"{np.mean(hidden):.3f}" if hidden else "",
        "fan_in_max": max(int(layer["fan_in_max"]) for layer in last.values()) if last else "",
        "unread_inputs": sum(int(layer["neurons_without_outputs"]) for layer in inputs) if last else "",
        "commit": run.versions["commit"][:7],
    }
    return row, curve


def kept(name, head, new):
    """Rows of a file here, those of runs that are new replaced; written again in order."""
    path = HERE / name
    runs = {key: list(rows) for key, rows in groupby(csv.DictReader(path.open()) if path.exists() else [], of_run)}
    runs |= {of_run(rows[0]): rows for rows in new}
    ordered = sorted(runs, key=lambda run: (ENVS.index(run[0]), METHODS.index(run[1]), run[2]))
    rows = [row for run in ordered for row in runs[run]]
    with path.open("w", newline="") as written:
        writer = csv.DictWriter(written, head, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def of_run(row):
    """Which run a row is of."""
    return tuple(row[name] for name in KEY)


def note_when_dense_is_passed(rows, curves):
    """Fills in the first step at which the mean of three evaluations is above the mean end of dense TD3."""
    for row in rows:
        dense = [float(one["last_10"]) for one in rows if (one["env"], one["method"]) == (row["env"], "TD3")]
        own = [one for one in curves if of_run(one) == of_run(row)]
        returns = np.array([float(one["return"]) for one in own])
        above = np.flatnonzero(np.convolve(returns, np.ones(3) / 3, "valid") > np.mean(dense)) if dense else []
        row["passes_dense_at"] = own[above[0] + 2]["step"] if len(above) and row["method"] != "TD3" else ""


def tables(rows):
    """Prints one for each environment."""
    heads = (
        "method",
        "seeds",
        "IQM [95 % interval]",
        "each",
        "area",
        "parameters",
        "FLOPs",
        "CPU s",
        "passes dense at",
    )
    for env, of_env in groupby(rows, lambda row: row["env"]):
        print(f"\n**{env}**\n\n| {' | '.join(heads)} |\n" + "|---" * len(heads) + "|")
        for method, group in groupby(of_env, lambda row: row["method"]):
            runs = list(group)
            each, *costs = (
                np.array([float(run[name]) for run in runs])
                for name in ("last_10", "area", "parameters", "flops_train", "cpu_s")
            )
            middle = aggregates(each[:, None], {"iqm": iqm}, stream(0, "headline", env, method))["iqm"]
            cells = (
                method,
                f"{len(runs)}",
                f"{middle.value:,.0f}" + (f" [{middle.low:,.0f}, {middle.high:,.0f}]" if len(runs) > 1 else ""),
                ", ".join(f"{one:,.0f}" for one in each),
                *(f"{cost.mean():{form}}" for cost, form in zip(costs, (",.0f", ",.0f", ".2e", ",.0f"), strict=True)),
                "" if method == "TD3" else ", ".join(run["passes_dense_at"] or "-" for run in runs),
            )
            print(f"| {' | '.join(cells)} |")
        published = zip(OF, PUBLISHED[env], strict=True)
        print("\nPublished: " + ", ".join(f"{name} {value}" for name, value in published) + ".")


def draw(curves, x, label, name):
    """A panel for each environment."""
    envs = list(dict.fromkeys(row["env"] for row in curves))
    methods = list(dict.fromkeys(row["method"] for row in curves))
    styles = line_styles(methods)
    with rc_context(STYLE):
        figure, panels = task_panels(envs, [2.6], len(methods))
        for env, (axis,) in panels.items():
            for method in methods:
                seeds = {}
                own = [row for row in curves if (row["env"], row["method"]) == (env, method)]
                for (_, _, seed), rows in groupby(own, of_run):
                    points = [(float(row[x]), float(row["return"])) for row in rows]
                    seeds[Run(HERE / seed, method, task=env)] = tuple(np.array(points).T)
                draw_curves(axis, seeds, method, styles[method], smooth=5)
            axis.set_xlabel(label)
        figure.axes[0].set_ylabel("return of an evaluation episode")
        add_legend(figure, [axis for axes in panels.values() for axis in axes])
        write_figure(figure, HERE / name)


def main(folders):
    done = [run.parent for folder in folders for run in sorted(folder.glob("*/DONE"))]
    found = [read(run) for run in done]
    rows = kept("runs.csv", HEAD, [[row] for row, _ in found])
    curves = kept("curves.csv", CURVES, [curve for _, curve in found])
    if not rows:
        sys.exit("no finished run here or in the folders named")
    note_when_dense_is_passed(rows, curves)
    kept("runs.csv", HEAD, [[row] for row in rows])
    tables(rows)
    draw(curves, "step", "env steps", "steps.png")
    draw(curves, "cpu_s", "CPU time (s)", "cpu.png")


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
