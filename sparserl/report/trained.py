"""Finished runs of `sparserl train`: what each reached, which are seeds of one method, which may be compared.

Decides what is measured of a learning curve, and what a comparison over environments is normalised by. Independent of
agents and configs beyond their keys: the caller names each run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.envs.registration import parse_env_id

from sparserl.errors import ConfigError, unknown_name
from sparserl.metrics.bootstrap import Floats
from sparserl.metrics.statistics import least_difference
from sparserl.recording.run_logs import check_returns, evaluation_curve, read_columns
from sparserl.recording.settings import env_label, settings
from sparserl.report.dense_equivalent import Measured
from sparserl.report.folders import check_numbers, read_result, read_versions
from sparserl.report.mixed import ENV_PACKAGES, notes_on_mixtures
from sparserl.report.seed_groups import legend, seed_groups

RESULTS = (*("density", "params_nonzero", "flops_train", "wall_s", "cpu_s", "memory_peak_bytes", "energy_kwh"),)
"""Keys of `result.json` that a report shows; a run may lack them."""
OVER_ENVS = "all environments"
"""Title of the comparison over several of them."""


@dataclass(frozen=True)
class TrainedRun:
    """A finished run.

    Attributes:
        path: Its folder.
        name: What its method is called.
        config: Its resolved config.
        steps: (E,) env steps of the evaluations, increasing.
        returns: (E,) mean return over the episodes of each.
        first: Returns of the episodes before the first step; none if these were not evaluated.
        last: Returns of the episodes of the last evaluation.
        result: What `result.json` says.
        versions: What `versions.json` says.
        family: Its algorithm, whether its networks are sparse or dense.
    """

    path: Path
    name: str
    config: Mapping[str, Any]
    steps: Floats
    returns: Floats
    first: Floats
    last: Floats
    result: Mapping[str, Any]
    versions: Mapping[str, Any]
    family: str = ""

    @property
    def env(self) -> str:
        """Id of its environment."""
        return str(self.config["env"])

    @property
    def task(self) -> str:
        """That with the arguments that it is made with."""
        return env_label(self.env, self.config.get("env_kwargs") or {})

    @property
    def seed(self) -> int:
        """Root seed."""
        return int(self.config["seed"])


def read_trained_run(path: Path, name: str, config: Mapping[str, Any], family: str = "") -> TrainedRun:
    """Reads a finished run.

    Args:
        path: Its folder.
        name: What its method is called, without env and seed.
        config: Its resolved config as plain data.
        family: As in `TrainedRun`.

    Raises:
        ConfigError: If a file is missing or cannot be read, or a return is not a number.
    """
    steps, returns = evaluation_curve(path)
    check_returns(steps, returns, path / "eval.csv")
    episodes = read_columns(path / "eval.csv")
    first, last = (episodes["return"][episodes["global_step"] == step] for step in (0.0, steps[-1]))
    result = read_result(path)
    check_numbers(result, RESULTS, path)
    return TrainedRun(path, name, config, steps, returns, first, last, result, read_versions(path), family)


# --- one number of a run ----------------------------------------------------------------------------


def final(steps: Floats, returns: Floats) -> float:
    """Mean return of the last evaluation."""
    del steps
    return float(returns[-1])


def last_10(steps: Floats, returns: Floats) -> float:
    """Mean of the last 10 evaluations, of all if there are fewer; that of step 0, of a policy that has learned nothing,
    is none of them."""
    learned = returns[steps > 0]
    return float(learned[-10:].mean()) if learned.size else float(returns[-1])


def last_10_counts(runs: Iterable[TrainedRun]) -> tuple[int, int]:
    """Of how many evaluations `last_10` is the mean, in the run with the fewest and in that with the most."""
    counts = [min(10, int((run.steps > 0).sum())) for run in runs]
    return min(counts), max(counts)


def area(steps: Floats, returns: Floats) -> float:
    """Mean return over the env steps of the run: the area under its learning curve, by trapezia, over their number.

    Example:
        >>> area(np.array([0.0, 10.0, 40.0]), np.array([0.0, 8.0, 8.0]))
        7.0
    """
    span = steps[-1] - steps[0]
    return float(np.trapezoid(returns, steps) / span) if span > 0 else float(returns[0])


MEASURES: Mapping[str, Callable[[Floats, Floats], float]] = {"final": final, "last_10": last_10, "area": area}
"""Measure -> function of env steps and returns of the evaluations; the first makes the pictures."""


# --- groups and comparisons -------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Seeds of one method on each of some environments.

    Attributes:
        label: What tells them from the other groups.
        runs: (S, T), one of each seed and environment.
        scales: (T,) what returns on each environment are divided by, > 0.
    """

    label: str
    runs: tuple[tuple[TrainedRun, ...], ...]
    scales: tuple[float, ...]

    @property
    def seeds(self) -> list[int]:
        """Of the rows."""
        return [of_seed[0].seed for of_seed in self.runs]

    @property
    def each(self) -> list[TrainedRun]:
        """All of them."""
        return [run for of_seed in self.runs for run in of_seed]

    def scores(self, measure: str) -> Floats:
        """(S, T) one of `MEASURES`, scaled."""
        of = MEASURES[measure]
        by_seed = [[of(run.steps, run.returns) for run in of_seed] for of_seed in self.runs]
        scores: Floats = np.array(by_seed) / np.array(self.scales)
        return scores

    def curves(self) -> tuple[Floats, Floats]:
        """(E,) env steps at which all of them were evaluated, and (E, S, T) returns there, scaled."""
        steps: Floats = reduce(np.intersect1d, [run.steps for run in self.each])
        by_seed = [[run.returns[np.isin(run.steps, steps)] for run in of_seed] for of_seed in self.runs]
        return steps, np.moveaxis(np.array(by_seed), -1, 0) / np.array(self.scales)

    def measured(self) -> Measured:
        """Its final return and size, for `dense_equivalents`."""
        sizes = self.of_results("params_nonzero")
        densities = self.of_results("density")
        return Measured(
            self.label,
            self.runs[0][0].family,
            None if None in sizes else float(np.mean(sizes)),  # type: ignore[arg-type]  # none is None
            None if None in densities else min(densities) == 1.0,  # type: ignore[type-var]  # likewise
            float(self.scores("final").mean()),
        )

    def of_results(self, key: str) -> list[float | None]:
        """A number of every `result.json`, None where there is none."""
        return [run.result.get(key) for run in self.each]


@dataclass(frozen=True)
class Comparison:
    """Groups on the same environments.

    Attributes:
        title: Id of the environment, or `OVER_ENVS`.
        envs: (T,) their ids; returns are as they are on one, and normalised on several.
        groups: At least one; none over environments if there is nothing to compare.
        baseline: The group that the others are compared with; None if it is not among them.
        notes: What a reader has to know, one line each.
    """

    title: str
    envs: tuple[str, ...]
    groups: tuple[Group, ...]
    baseline: Group | None
    notes: tuple[str, ...] = ()

    @property
    def normalised(self) -> bool:
        """Whether returns are divided by those of the baseline."""
        return len(self.envs) > 1


Groups = dict[str, list[TrainedRun]]


def comparisons(runs: Sequence[TrainedRun], baseline: str | None, allow_mixed: bool) -> list[Comparison]:
    """One comparison of each environment, and one over all of them if there are several.

    Args:
        runs: Any number, in the order in which groups are to come.
        baseline: Label of the group that others are compared with; the densest on most environments if None.
        allow_mixed: Whether to compare different env versions and step budgets all the same, and say so.

    Raises:
        ConfigError: If two runs are the same seed of the same, versions or budgets are mixed, or the baseline is
            unknown.
    """
    notes = _notes_of_families(runs, allow_mixed)
    by_env: dict[str, list[TrainedRun]] = defaultdict(list)
    for run in runs:
        by_env[run.task].append(run)
    groups_of = {env: seed_groups(members, _name) for env, members in by_env.items()}
    if not groups_of:
        return []
    chosen = _baseline(groups_of, baseline)
    of_each = []
    for env, groups in groups_of.items():
        made = {
            label: Group(label, tuple((run,) for run in members), scales=(1.0,)) for label, members in groups.items()
        }
        said = (*notes[_family(next(iter(groups.values()))[0].env)], *legend(groups, _name))
        of_each.append(Comparison(env, (env,), tuple(made.values()), made.get(chosen), said))
    return of_each if len(of_each) == 1 else [*of_each, _over_envs(groups_of, chosen)]


def _name(run: TrainedRun) -> str:
    return run.name


def _family(env: str) -> str:
    """An env id without its version."""
    space, name, _ = parse_env_id(env)
    return name if space is None else f"{space}/{name}"


def _notes_of_families(runs: Sequence[TrainedRun], allow_mixed: bool) -> dict[str, list[str]]:
    families: dict[str, list[tuple[Path, Mapping[str, Any]]]] = defaultdict(list)
    for run in runs:
        families[_family(run.env)].append((run.path, {**run.versions, **run.config}))
    keys = ("env", "total_steps", *ENV_PACKAGES)
    return {family: notes_on_mixtures(alike, keys, allow_mixed) for family, alike in families.items()}


def _baseline(groups_of: Mapping[str, Groups], wanted: str | None) -> str:
    labels = dict.fromkeys(label for groups in groups_of.values() for label in groups)
    if wanted is not None:
        if wanted not in labels:
            raise ConfigError(unknown_name("group for --baseline", wanted, labels))
        return wanted

    def rank(label: str) -> tuple[int, float]:
        members = [groups[label] for groups in groups_of.values() if label in groups]
        return len(members), float(np.mean([run.result.get("density") or 0.0 for alike in members for run in alike]))

    return max(labels, key=rank)  # the first of equals


def _over_envs(groups_of: Mapping[str, Groups], baseline: str) -> Comparison:
    envs = tuple(groups_of)

    def nothing(why: str) -> Comparison:
        return Comparison(OVER_ENVS, envs, (), None, (f"nothing is averaged over environments: {why}",))

    if any(baseline not in groups for groups in groups_of.values()):
        missing = next(env for env, groups in groups_of.items() if baseline not in groups)
        return nothing(f"the baseline, {baseline}, has no finished run on {missing}")
    scales = {env: float(np.mean([final(run.steps, run.returns) for run in groups_of[env][baseline]])) for env in envs}
    for env, scale in scales.items():
        if scale <= 0:
            return nothing(f"the mean final return of {baseline} on {env} is {scale:.5g}, which nothing is divided by")
        if why := _why_unlearned(groups_of[env][baseline]):
            return nothing(f"{baseline} learned nothing on {env}: {why}")
    notes = [
        f"returns divided by the mean final return of the baseline on the same environment: 1 is {baseline}",
        *(f"{env}: 1 is a return of {scale:,.5g}" for env, scale in scales.items()),
    ]
    groups = []
    for label in dict.fromkeys(label for groups_there in groups_of.values() for label in groups_there):
        rows, left_out = _on_every_env(label, groups_of)
        notes += left_out
        if rows:
            groups.append(Group(label, rows, tuple(scales.values())))
    differing = _settings_of_envs(groups)
    if differing:
        notes.append(f"settings of a group that depend on the environment: {', '.join(differing)}")
    chosen = next((group for group in groups if group.label == baseline), None)
    return Comparison(OVER_ENVS, envs, tuple(groups), chosen, tuple(notes))


def _why_unlearned(runs: Sequence[TrainedRun]) -> str:
    """Why the last returns of some runs cannot be told from those before the first step; nothing if they can."""
    first, last = (np.concatenate([getattr(run, which) for run in runs]) for which in ("first", "last"))
    if not first.size or last.mean() - first.mean() > (least := least_difference(last, first)):
        return ""
    apart = "" if np.isinf(least) else f", not {least:.3g} apart, two standard errors"
    return f"its return is {last.mean():.5g} at the end and {first.mean():.5g} before{apart}"


def _on_every_env(label: str, groups_of: Mapping[str, Groups]) -> tuple[tuple[tuple[TrainedRun, ...], ...], list[str]]:
    """(S, T) runs of the seeds of a group that are there on every environment, and a note if others are left out."""
    of_seeds = [{run.seed: run for run in groups.get(label, ())} for groups in groups_of.values()]
    shared = sorted(set[int].intersection(*map(set, of_seeds)))
    if not shared:
        return (), [f"{label}: left out, as no seed is finished on every environment"]
    rows = tuple(tuple(one[seed] for one in of_seeds) for seed in shared)
    others = sorted(set().union(*of_seeds).difference(shared))
    note = f"{label}: left out, as not finished on every environment: seed {', '.join(map(str, others))}"
    return rows, [note] if others else []


def _settings_of_envs(groups: Sequence[Group]) -> list[str]:
    """Keys besides those of the environment in which runs of one group differ."""
    keys: dict[str, None] = {}
    for group in groups:
        first, *others = [settings(run.config) for run in group.runs[0]]
        keys |= dict.fromkeys(
            key
            for other in others
            for key in {**first, **other}
            if key.partition(".")[0] not in ("env", "env_kwargs") and first.get(key) != other.get(key)
        )
    return list(keys)
