"""Folders of continual RL runs become records, groups of seeds, and comparisons with runs from scratch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.rl_runs import HIGH, LOW, write_rl_run

from sparserl.errors import ConfigError
from sparserl.report.rl_run import RLRun, read_run
from sparserl.report.runs import difference, sections

FINETUNE = [[0, 0], [70, 0], [150, 0], [50, 50], [10, 80]]
SCRATCH = [[0, 0], [50, 0], [150, 0], [0, 50], [0, 100]]
SPARSE = {"method": "static", "density": 0.2, "epsilon": None}


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """Writes a run and reads it."""

    def make(curves: Any = FINETUNE, **settings: Any) -> RLRun:
        return read_run(write_rl_run(tmp_path / f"run{len(list(tmp_path.iterdir()))}", curves, **settings))

    return make


def labels(runs: list[RLRun]) -> list[tuple[str | None, list[str]]]:
    """Reference and groups of each section."""
    return [
        (section.reference.label if section.reference else None, [group.label for group in section.groups])
        for section in sections(runs)
    ]


# --- one run ----------------------------------------------------------------------------------------


def test_a_record_is_what_the_files_say(made: Any) -> None:
    run = made(method="ewc", seed=3, deterministic=5.0, random=(-50.0, 4.0))
    assert (run.method, run.algo, run.seed, run.sequence, run.topology) == ("ewc", "ds_sac", 3, "made_up", "dense")
    assert [(task.env, task.steps, task.repeat) for task in run.tasks] == [("Hopper-v5", 10, 0)] * 2
    assert run.steps.tolist() == [0, 5, 10, 15, 20]
    assert run.performance("return", "stochastic").tolist() == FINETUNE
    assert run.performance("return", "deterministic").tolist() == (np.array(FINETUNE) + 5).tolist()
    assert run.random_returns.tolist() == [-50, 4]
    assert not run.signals_success
    # Two layers: 11 of task 0 and 12 of task 1 in each; frozen, free and size are said once a layer.
    assert run.connections.owned == {"0": 22, "1": 24}
    assert (run.connections.frozen, run.connections.free, run.connections.size) == (4, 7, 78)
    assert run.connections.density == {"actor": 0.5, "critic": 23 / 32}
    assert run.result == {"params_nonzero_per_task": [30, 63], "wall_s": 103.0}


def test_success_is_performance_where_every_episode_signals_it(made: Any) -> None:
    solved = [[0, 0], [0.5, 0], [1, 0], [1, 0.5], [0.5, 1]]
    run = made(solved, success=True)
    assert run.performance("success", "stochastic").tolist() == solved
    assert (run.performance("success_last", "stochastic") == 0).all()
    assert sections([run])[0].measures == ("success", "success_last")
    assert sections([made()])[0].measures == ("return",)
    assert sections([run, made(seed=1)])[0].measures == ("return",)


def test_success_of_some_tasks_alone_is_not_performance(made: Any) -> None:
    whole = made([[0, 0]] * 5, success=True)
    success = np.where(whole.evaluations["task"] == 1, np.nan, whole.evaluations["success"])
    assert not replace(whole, evaluations={**whole.evaluations, "success": success}).signals_success


def test_a_task_is_what_it_does_and_not_what_it_is_called(made: Any) -> None:
    run = made(seed=1)
    renamed = replace(run, tasks=tuple(replace(task, name="another") for task in run.tasks))
    assert labels([made(), renamed]) == [(None, ["finetune, dense"])]
    assert difference(run, renamed) is None


def test_equal_tasks_are_told_apart_by_their_place(made: Any) -> None:
    run = made(modifications=(LOW, LOW))
    assert [task.repeat for task in run.tasks] == [0, 1]


@pytest.mark.parametrize(
    ("topology", "expected"),
    [
        ({"method": "dense", "density": 0.5}, "dense"),
        (SPARSE, "static density 0.2"),
        ({"method": "set", "density": None}, "set"),
        ({"method": "ds_sac", "epsilon": [7, 64]}, "ds_sac epsilon [7, 64]"),
        (
            {"method": "rigl", "density": 0.3, "critic_density": 0.6},
            "rigl density 0.3 critic_density 0.6",
        ),
    ],
)
def test_the_density_is_in_the_name_of_a_topology(made: Any, topology: dict[str, Any], expected: str) -> None:
    assert made(topology=topology).topology == expected


# --- groups -----------------------------------------------------------------------------------------


def test_runs_that_differ_in_the_seed_alone_are_one_group(made: Any) -> None:
    runs = [made(seed=seed, threads=seed + 1, wandb={"tags": [str(seed)]}) for seed in (2, 0, 1)]
    (section,) = sections(runs)
    (group,) = section.groups
    assert group.label == "finetune, dense"
    assert group.seeds == [0, 1, 2]


def test_what_else_differs_is_in_the_label(made: Any) -> None:
    runs = [made(method="ewc", ewc={"strength": strength, "online": True}) for strength in (10.0, 20.0)]
    runs += [made(method="ewc", topology=SPARSE, ewc={"strength": 30.0})]
    runs += [made(method="l2"), made(method="l2", seed=1)]
    assert labels(runs) == [
        (
            None,
            ["ewc, dense, strength 10.0", "ewc, dense, strength 20.0", "ewc, static density 0.2", "l2, dense"],
        )
    ]


def test_the_same_seed_twice_is_refused(made: Any) -> None:
    with pytest.raises(ConfigError, match=r"run0 and .*run1 are both seed 0 of finetune, dense; leave one out"):
        sections([made(), made()])


def test_sequences_and_agents_do_not_mix(made: Any) -> None:
    runs = [made(), made(steps=(10, 20)), made(modifications=(LOW, {"gravity": 9.0})), made(algo="sac")]
    assert labels(runs) == [(None, ["finetune, dense"])] * 4


# --- references -------------------------------------------------------------------------------------


def test_a_dense_and_a_sparse_reference_are_two_comparisons(made: Any) -> None:
    runs = [made(topology=SPARSE), made(SCRATCH, method="scratch"), made(SCRATCH, method="scratch", topology=SPARSE)]
    everything = ["finetune, static density 0.2", "scratch, dense", "scratch, static density 0.2"]
    assert labels(runs) == [("scratch, dense", everything), ("scratch, static density 0.2", everything)]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"algo": "sac"}, "algo ds_sac and sac"),
        ({"agent": {"net_arch": [9]}}, r"agent\.net_arch \[8, 8\] and \[9\]"),
        ({"steps": (10, 20)}, r"steps per task \[10\] and \[10, 20\]"),
        (
            {"modifications": (LOW, {"gravity": 9.0})},
            "task \"task {'gravity': 1.5}\" of Hopper-v5 is not one of its tasks",
        ),
        ({"modifications": (LOW, LOW)}, "task \"task {'gravity': 1.5}\" of Hopper-v5 is not one of its tasks"),
    ],
)
def test_what_makes_a_reference_no_reference(made: Any, other: dict[str, Any], reason: str) -> None:
    run, reference = made(), made(SCRATCH, method="scratch", **other)
    assert difference(run, made(SCRATCH, method="scratch", topology=SPARSE, seed=5)) is None
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(difference(run, reference))
    alone = next(section for section in sections([run, reference]) if section.reference is None)
    assert [group.label for group in alone.groups] == ["finetune, dense"]
    assert alone.why_none == f"{reference.path} is no reference, {difference(run, reference)}"


def test_a_reference_is_evaluated_at_the_same_steps(made: Any, tmp_path: Path) -> None:
    reference = write_rl_run(tmp_path / "seldom", SCRATCH, method="scratch")
    whole = (reference / "eval.csv").read_text().splitlines()
    (reference / "eval.csv").write_text("\n".join(line for line in whole if not line.startswith("15,")) + "\n")
    assert difference(made(), read_run(reference)) == "one of them alone was evaluated at env step 15"


def test_without_runs_from_scratch_the_reason_says_so(made: Any) -> None:
    (section,) = sections([made(), made(method="ewc")])
    assert section.reference is None
    assert section.why_none == "no runs of --method scratch given"


# --- summaries --------------------------------------------------------------------------------------


def test_a_summary_by_hand(made: Any) -> None:
    runs = [made(seed=seed) for seed in range(2)]
    runs += [made(SCRATCH, method="scratch", seed=seed, random=(-50.0, 0.0)) for seed in range(2)]
    (section,) = sections(runs)
    assert section.measures == ("normalised_return", "return")
    found = section.summary(section.groups[0], "normalised_return", "stochastic", 1)
    # Task 0: random -50, scratch 150. Task 1: random 0, scratch 100.
    assert found.per_task["performance"] == pytest.approx([60 / 200, 0.8])
    assert found.per_task["own"] == pytest.approx([200 / 200, 0.8])
    assert found.per_task["auc"] == pytest.approx([(120 + 200) / 2 / 200, 0.65])
    assert found.per_task["auc_scratch"] == pytest.approx([(100 + 200) / 2 / 200, 0.75])
    assert found.performance.value == pytest.approx(0.55)
    assert found.forgetting.value == pytest.approx(0.35)
    assert found.forward_transfer_difference.value == pytest.approx(-0.025)
    as_they_are = section.summary(section.groups[0], "return", "stochastic", 1)
    assert as_they_are.per_task["performance"] == pytest.approx([10, 80])
    assert as_they_are.forgetting.value == pytest.approx(140 / 2)
    assert as_they_are.forward_transfer_difference.value == pytest.approx((110 - 100 + 65 - 75) / 2)
    of_two = section.summary(section.groups[0], "normalised_return", "stochastic", 2)
    # Means of 120 and 200, of 50 and 80; at the end of 100 and 60, of 50 and 80.
    # From scratch of 100 and 200, of 50 and 100.
    assert of_two.per_task["own"] == pytest.approx([160 / 150, 65 / 75])
    assert of_two.per_task["performance"] == pytest.approx([80 / 150, 65 / 75])


def test_nothing_is_normalised_by_a_reference_that_learned_nothing(made: Any) -> None:
    # On task 1 from scratch 5 +- 3, random actions 0 +- 1, two episodes each: two standard errors are sqrt(40) = 6.32.
    curves = [[0, 0], [50, 0], [150, 0], [0, 2], [0, 5]]
    (section,) = sections([made(), made(curves, method="scratch")])
    reason = (
        "from scratch nothing was learned on task 1: 5 and 0 of random actions, not 6.32 apart, two standard errors"
    )
    for policy in ("stochastic", "deterministic"):
        found = section.summary(section.groups[0], "normalised_return", policy, 1)
        assert np.isnan(found.performance.value)  # 80 / 5 were 16 times as good as from scratch
        assert found.undefined["performance"] == found.undefined["forward_transfer_difference"] == reason
        assert np.isnan(found.per_task["performance"]).tolist() == [False, True]
    assert section.summary(section.groups[0], "return", "stochastic", 1).performance.value == 45
    # Four runs of the same, 8 episodes each: two standard errors are sqrt(80 / 14 * (1 / 8 + 1 / 8)) * 2 = 2.39.
    (section,) = sections([made(), *(made(curves, method="scratch", seed=seed) for seed in range(4))])
    found = section.summary(section.groups[0], "normalised_return", "stochastic", 1)
    assert found.per_task["performance"] == pytest.approx([10 / 150, 16])


def test_a_policy_is_normalised_by_the_same_of_the_reference(made: Any) -> None:
    runs = [made(deterministic=20.0), made(SCRATCH, method="scratch", deterministic=50.0)]
    (section,) = sections(runs)
    found = section.summary(section.groups[0], "normalised_return", "deterministic", 1)
    assert found.per_task["performance"] == pytest.approx([30 / 200, 100 / 150])


def test_tasks_are_the_same_in_whatever_order_a_seed_meets_them(made: Any) -> None:
    def turned(curves: list[list[int]]) -> list[list[float]]:
        """The same run where the second task is the first: its returns are ten times as high."""
        return [[10 * first, second / 10] for first, second in curves]

    runs = [made(), made(turned(FINETUNE), seed=1, modifications=(HIGH, LOW))]
    high = [[first, 10 * second] for first, second in FINETUNE]
    (section,) = sections([made(high, seed=0), runs[1]])
    assert [task.modification for task in section.tasks] == ['{"gravity": 0.5}', '{"gravity": 1.5}']
    found = section.summary(section.groups[0], "return", "stochastic", 1)
    # Gravity 0.5: at the end 10 and 8. Gravity 1.5: at the end 800 and 100.
    assert found.per_task["performance"] == pytest.approx([9, 450])
    # Seed 0 meets gravity 0.5 first (150, later 10), seed 1 last; seed 1 meets gravity 1.5 first (1500, later 100).
    assert found.per_task["forgetting"] == pytest.approx([70, 700])


def test_random_returns_belong_to_tasks_and_not_to_places(made: Any) -> None:
    runs = [made(), made(SCRATCH, method="scratch", modifications=(HIGH, LOW), random=(-50.0, -900.0))]
    (section,) = sections(runs)
    found = section.summary(section.groups[0], "normalised_return", "stochastic", 1)
    # Gravity 0.5: random -900, scratch 100; gravity 1.5: random -50, scratch 150.
    assert found.per_task["performance"] == pytest.approx([910 / 1000, 130 / 200])


# --- bad input --------------------------------------------------------------------------------------


def edited(path: Path, name: str, **changes: Any) -> None:
    """Sets keys of a YAML file; None removes one."""
    data = yaml.safe_load((path / name).read_text()) | changes
    (path / name).write_text(yaml.safe_dump({key: value for key, value in data.items() if value is not None}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "config.yaml").unlink(), "is not a run folder: it has no config.yaml"),
        (lambda run: edited(run, "config.yaml", sequence=None), "is a run of `sparserl train`"),
        (lambda run: (run / "sequence.yaml").unlink(), "is a run of supervised tasks"),
        (
            lambda run: [(run / name).unlink() for name in ("DONE", "result.json")],
            r"is not finished; continue it with: sparserl continual --resume .*run",
        ),
        (lambda run: edited(run, "config.yaml", algo=None), r"config\.yaml has no algo"),
        (lambda run: edited(run, "config.yaml", agent={}), r"config\.yaml has no agent\.net_arch"),
        (lambda run: edited(run, "sequence.yaml", tasks=[{"name": "a"}]), r"sequence\.yaml has no env"),
        (lambda run: (run / "eval.csv").unlink(), r"eval\.csv is missing"),
        (lambda run: (run / "random.csv").write_text("task,return\n0,1\n"), r"random\.csv has no global_step"),
        (lambda run: (run / "result.json").unlink(), r"cannot read .*result\.json"),
        (lambda run: (run / "result.json").write_text("{"), r"cannot read .*result\.json"),
        (
            lambda run: edited(
                run, "sequence.yaml", tasks=yaml.safe_load((run / "sequence.yaml").read_text())["tasks"][:1]
            ),
            r"eval\.csv has task 1, but the sequence has 1 tasks|random\.csv has task 1, but the sequence has 1 tasks",
        ),
    ],
)
def test_refuses_in_one_line(tmp_path: Path, damage: Any, message: str) -> None:
    run = write_rl_run(tmp_path / "run", FINETUNE)
    damage(run)
    with pytest.raises(ConfigError, match=message) as refusal:
        read_run(run)
    assert str(tmp_path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
