"""python results/headline/make_table.py [RUNS...]: runs.csv, curves.csv and two pictures beside this file, and tables.

RUNS are folders that the sweep filled. Rows of finished runs that are here already stay, unless RUNS have the run anew;
without RUNS pictures and tables are drawn again from what is here.
"""

import sys
from collections import defaultdict
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib import rc_context

from sparserl.metrics.statistics import aggregates, iqm
from sparserl.plots.curves import spent
from sparserl.plots.style import STYLE, Run, add_legend, by_task, draw_curves, line_styles, task_panels, write_figure
from sparserl.recording.run_logs import columns_by, read_columns
from sparserl.report.trained import area, last_10, read_trained_run
from sparserl.seeding import stream

sys.path.append(str(Path(__file__).parents[1]))
from tables import finished, merged, print_head, print_row

HERE = Path(__file__).parent
RUN = ("env", "method", "seed")
COSTS = ("area", "parameters", "flops_train", "cpu_s")
TOPOLOGY = ("explored", "dormant", "fan_in_max", "unread_inputs")
HEAD = (*RUN, "last_10", *COSTS, "density", "energy_kwh", *TOPOLOGY, "commit")
CURVES = (*RUN, "step", "return", "cpu_s")
ON_THE_WAY = (100_000, 200_000, 500_000)
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


def read(finished_run):
    """The row of a finished run, and those of its curve."""
    folder, config, result = finished_run.path, finished_run.config, finished_run.result
    key = dict(zip(RUN, (config["env"], method_of(config), config["seed"]), strict=True))
    run = read_trained_run(folder, key["method"], config)
    cpu = spent(read_columns(folder / "progress.csv"), "cpu", run.steps)
    curve = [
        {**key, "step": f"{step:.0f}", "return": f"{value:.1f}", "cpu_s": f"{seconds:.0f}"}
        for step, value, seconds in zip(run.steps, run.returns, cpu, strict=True)
    ]
    row = {
        **key,
        "last_10": f"{last_10(run.steps, run.returns):.1f}",
        "area": f"{area(run.steps, run.returns):.1f}",
        "parameters": result["params_nonzero"],
        "flops_train": f"{result['flops_train']:.4g}",
        "cpu_s": f"{result['cpu_s']:.0f}",
        "density": f"{result['density']:.3f}",
        "energy_kwh": result.get("energy_kwh", ""),
        **(dict.fromkeys(TOPOLOGY, "") if config["algo"] == "td3" else at_the_end(folder, result)),
        "commit": finished_run.commit,
    }
    return row, curve


def at_the_end(folder, result):
    """What the topology is at the end."""
    layers = columns_by("layer", folder / "topology.csv")
    last = {name: {column: values[-1] for column, values in columns.items()} for name, columns in layers.items()}
    dormant = [layer["dormant"] for layer in last.values() if not np.isnan(layer["dormant"])]
    values = (
        f"{result['explored_fraction']:.3f}",
        f"{np.mean(dormant):.3f}" if dormant else "",
        f"{max(layer['fan_in_max'] for layer in last.values()):.0f}",
        f"{sum(last[name]['neurons_without_outputs'] for name in last if name.endswith('.0')):.0f}",
    )
    return dict(zip(TOPOLOGY, values, strict=True))


def passes(curve, level):
    """The first step at which the mean of three evaluations is above a return; a dash if there is none."""
    returns = np.array([float(row["return"]) for row in curve])
    above = np.flatnonzero(np.convolve(returns, np.ones(3) / 3, "valid") > level)
    return f"{int(curve[above[0] + 2]['step']):,}" if above.size else "-"


def tables(rows, curves):
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
        methods = {method: list(runs) for method, runs in groupby(of_env, lambda row: row["method"])}
        dense = [float(run["last_10"]) for run in methods.get("TD3", [])]
        print(f"\n**{env}**\n")
        print_head(*heads)
        for method, runs in methods.items():
            passed = [passes(curves[of_run(run)], np.mean(dense)) for run in runs] if dense and method != "TD3" else []
            each, *costs = (np.array([float(run[name]) for run in runs]) for name in ("last_10", *COSTS))
            middle = aggregates(each[:, None], {"iqm": iqm}, stream(0, "headline", env, method))["iqm"]
            print_row(
                method,
                len(runs),
                f"{middle.value:,.0f}" + (f" [{middle.low:,.0f}, {middle.high:,.0f}]" if len(runs) > 1 else ""),
                ", ".join(f"{one:,.0f}" for one in each),
                *(f"{cost.mean():{form}}" for cost, form in zip(costs, (",.0f", ",.0f", ".2e", ",.0f"), strict=True)),
                ", ".join(passed),
            )
        print()
        print_head("mean of the ten evaluations up to step", *(f"{step:,}" for step in ON_THE_WAY))
        for method, runs in methods.items():
            print_row(method, *(on_the_way([curves[of_run(run)] for run in runs], step) for step in ON_THE_WAY))
        published = zip(OF, PUBLISHED[env], strict=True)
        print("\nPublished: " + ", ".join(f"{name} {value}" for name, value in published) + ".")


def on_the_way(curves, step):
    """What a method returns after fewer steps: ten evaluations, mean over seeds."""
    before = [np.array([(float(row["step"]), float(row["return"])) for row in curve]).T for curve in curves]
    return f"{np.mean([last_10(*curve[:, curve[0] <= step]) for curve in before]):,.0f}"


def of_run(row):
    """Which run a row is of."""
    return tuple(row[name] for name in RUN)


def draw(curves, x, label, name):
    """A panel for each environment."""
    lines = {
        Run(Path("-".join(run)), run[1], task=run[0]): tuple(
            np.array([(float(row[x]), float(row["return"])) for row in curve]).T
        )
        for run, curve in curves.items()
    }
    styles = line_styles(run.label for run in lines)
    with rc_context(STYLE):
        figure, panels = task_panels(list(by_task(lines)), [2.6], len(styles))
        for env, (axis,) in panels.items():
            for method, style in styles.items():
                seeds = {run: curve for run, curve in lines.items() if (run.task, run.label) == (env, method)}
                draw_curves(axis, seeds, method, style, smooth=5)
            axis.set_xlabel(label)
        figure.axes[0].set_ylabel("return of an evaluation episode")
        add_legend(figure, figure.axes)
        write_figure(figure, HERE / name)


def main(folders):
    found = [read(run) for folder in folders for run in finished(folder, "*")]
    rows = merged(HERE / "runs.csv", RUN, [row for row, _ in found], HEAD, "\n")
    if not rows:
        sys.exit("no finished run here or in the folders named")
    curves = defaultdict(list)
    for row in merged(HERE / "curves.csv", (*RUN, "step"), [row for _, curve in found for row in curve], CURVES, "\n"):
        curves[of_run(row)].append(row)
    tables(rows, curves)
    draw(curves, "step", "env steps", "steps.png")
    draw(curves, "cpu_s", "CPU time (s)", "cpu.png")


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
