"""python results/state-of-sparse/make_table.py RUNS...: runs.csv and returns.png beside this file, and tables.

RUNS are folders that the sweeps filled. Rows that runs.csv has already stay, unless RUNS have the run anew.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import yaml
from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).parents[1]))
from tables import finished, merged, print_head, print_row

HERE = Path(__file__).parent
RUN = ("algo", "env", "method", "density", "seed")
HEAD = (*RUN, "return", "parameters", "flops_train", "cpu_s", "commit")
DENSITIES = ("0.5", "0.2", "0.1", "0.05", "0.01")
ORDER = ("gmp", "set", "rigl", "static", "narrow dense")  # the study's, from the best down, at high sparsity


def rows(folder):
    sweeps = [yaml.safe_load((HERE / name).read_text()) for name in ("dqn.yaml", "ppo.yaml")]
    narrow = {}  # (env, widths) -> density that they are compared with
    for grid in (one for sweep in sweeps for one in sweep["grid"] if "agent.net_arch" in one):
        for env in grid["env"]:
            narrow |= {
                (env, *widths): density for widths, density in zip(grid["agent.net_arch"], DENSITIES, strict=True)
            }
    for run in finished(folder, "*"):
        result, config = run.result, run.config
        method = config.get("topology", {}).get("method", "dense")
        density = str(config["topology"]["density"]) if method != "dense" else "1"
        if method == "dense" and (own := narrow.get((config["env"], *config["agent"]["net_arch"]))):
            method, density = "narrow dense", own
        yield {
            "algo": config["algo"].removeprefix("ds_"),
            "env": config["env"],
            "method": {"ds_ppo": "set"}.get(method, method),
            "density": density,
            "seed": str(config["seed"]),
            "return": f"{result['return_last10']:.1f}",  # of the last ten evaluations
            "parameters": result["params_nonzero"],
            "flops_train": result["flops_train"],
            "cpu_s": round(result["cpu_s"]),
            "commit": run.commit,
        }


def cell(values):
    """Mean and half the range of the seeds; how many there are, where fewer than three."""
    if not len(values):
        return ""
    spread = f" +- {np.ptp(values) / 2:.0f}" if len(values) > 1 else ""
    return f"{np.mean(values):.0f}{spread}" + (f" (n {len(values)})" if len(values) < 3 else "")


def main(folders):
    new = [row for folder in folders for row in rows(folder)]
    found = merged(HERE / "runs.csv", RUN, new, HEAD)
    tasks = defaultdict(lambda: defaultdict(list))
    for row in found:
        tasks[row["algo"], row["env"]][row["method"], row["density"]].append(float(row["return"]))
    figure = Figure(figsize=(5.2 * len(tasks), 4.2), layout="constrained")
    for axis, ((algo, env), returns) in zip(
        figure.subplots(1, len(tasks), squeeze=False)[0], tasks.items(), strict=True
    ):
        dense = returns.pop(("dense", "1"), [])
        print(f"\n**{algo.upper()}, {env}**; dense {cell(dense)}\n")
        print_head("method", *DENSITIES)
        for method in ORDER:
            own = [returns[method, density] for density in DENSITIES]
            if any(own):
                print_row(f"`{method}`", *map(cell, own))
            there = [(float(density), values) for density, values in zip(DENSITIES, own, strict=True) if values]
            for density, values in there:
                axis.plot([density] * len(values), values, ".", color=f"C{ORDER.index(method)}", alpha=0.5)
            means = [np.mean(values) for _, values in there]
            axis.plot([density for density, _ in there], means, color=f"C{ORDER.index(method)}", label=method)
        if dense:
            axis.axhline(np.mean(dense), color="gray", linestyle=":", label="dense")
        axis.set(xscale="log", title=f"{algo.upper()}, {env}", xlabel="density", ylabel="return, last ten evaluations")
        axis.set_xticks([float(density) for density in DENSITIES], DENSITIES)
        axis.set_xticks([], minor=True)
        axis.invert_xaxis()
        axis.legend(fontsize="small")
    figure.savefig(HERE / "returns.png", dpi=100)


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
