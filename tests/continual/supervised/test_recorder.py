"""A recorded run of a continual learner: what it writes, and that one which was cut off ends like one that was not."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.killed import Killed
from support.runs import OF_THE_MACHINE
from support.tasks import blobs
from support.trees import assert_equal_trees

from sparserl.continual.strategies import MethodOptions, make_strategy, methods_of
from sparserl.continual.strategies.nispa import NISPAOptions
from sparserl.continual.strategies.packnet import PackNetOptions
from sparserl.continual.strategies.spacenet import SpaceNetOptions
from sparserl.continual.supervised.classifier_recorder import checksum
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.continual.supervised.recorder import LOGS, SequenceRecorder
from sparserl.continual.supervised.tasks import Scenario, TaskSequence
from sparserl.errors import CheckpointError
from sparserl.recording import checkpoint
from sparserl.recording.run_folder import CsvLog, RunFolder, full_checkpoints
from sparserl.recording.whole_checkpoints import cut_logs

OPTIONS = MethodOptions(
    nispa=NISPAOptions(phase_epochs=2),
    packnet=PackNetOptions(retrain_epochs=2),
    spacenet=SpaceNetOptions(connections=(40, 30, 6), selected=(12, 10), reserved=(5, 4)),
)
CONFIG = LearnerConfig(hidden=(32, 24), optimizer="adam", learning_rate=0.01, epochs=4, batch_size=16)
"""Three tasks of 40 samples: 3 steps an epoch, 12 a task, 36 in all."""


class Listener:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []

    def log(self, step: int, metrics: Any) -> None:
        self.logged.append((step, dict(metrics)))

    def close(self, summary: Any) -> None: ...


def recorder(
    path: Path, method: str = "spacenet", scenario: Scenario | None = None, sequence: TaskSequence | None = None
) -> SequenceRecorder:
    """A recorder of a new learner in a folder, which is made if it is not there."""
    sequence = sequence or blobs(scenario or ("task" if method in ("packnet", "wsn") else "class"))
    learner = SupervisedLearner(sequence, make_strategy(method, "classifier", OPTIONS), CONFIG, seed=3)
    if not path.exists():
        RunFolder.create(path, config_yaml="", command="", threads=1, parts=["checkpoints"])
    return SequenceRecorder(
        learner,
        RunFolder.open(path),
        identity={"method": method},
        log_every_steps=4,
        checkpoint_every_steps=5,
        show_progress=False,
    )


def resumed(path: Path, method: str, checkpoint_at: int = -1) -> SequenceRecorder:
    """A recorder of a new learner that continues from a checkpoint, the newest by default."""
    found = recorder(path, method)
    state = checkpoint.load(full_checkpoints(found.folder)[checkpoint_at])
    found.restore(state)
    cut_logs(found.folder, state)
    return found


def rows(path: Path, name: str) -> list[dict[str, str]]:
    with (path / f"{name}.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key not in OF_THE_MACHINE} for row in csv.DictReader(file)]


def outcome(found: SequenceRecorder) -> dict[str, Any]:
    """All that a run leaves, without wall-clock values and what is derived when it is needed."""
    result = json.loads(json.dumps(found.result()))
    for name in ("wall_s", "steps_per_second", "cpu_s", "memory_peak_bytes", "bytes_indices"):
        result.pop(name)
    logs = {name: rows(found.folder.path, name) for name in LOGS}
    return {"learner": found.learner.state_dict(), "result": result, "logs": logs}


def die_in_step(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    original, count = SupervisedLearner._step, [0]

    def replacement(self: SupervisedLearner, *args: Any) -> float:
        count[0] += 1
        if count[0] == step:
            raise Killed
        return original(self, *args)

    monkeypatch.setattr(SupervisedLearner, "_step", replacement)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """What a run of a method leaves that nothing stopped."""
    known: dict[str, dict[str, Any]] = {}

    def run(method: str) -> dict[str, Any]:
        if method not in known:
            found = recorder(tmp_path_factory.mktemp("uninterrupted") / "run", method)
            found.learn()
            known[method] = outcome(found)
        return known[method]

    return run


KILLED_AT = {
    "before the first checkpoint of the second task": 14,  # from the one after the first task, at 12
    "after an epoch in which connections moved": 16,  # from 15, the end of the first epoch of the second task
    "in an epoch": 18,
    "after the last step of the second task": 25,
    "in the last step": 36,
}


@pytest.mark.parametrize("moment", KILLED_AT)
@pytest.mark.parametrize("method", ["spacenet", "replay"])
def test_a_run_that_was_killed_ends_like_one_that_was_not(
    method: str,
    moment: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    uninterrupted: Callable[[str], dict[str, Any]],
) -> None:
    with monkeypatch.context() as patch:
        die_in_step(patch, KILLED_AT[moment])
        with pytest.raises(Killed):
            recorder(tmp_path / "run", method).learn()
    again = resumed(tmp_path / "run", method)
    assert 0 < again.learner.steps < KILLED_AT[moment]
    again.learn()
    assert_equal_trees(outcome(again), uninterrupted(method))


@pytest.mark.parametrize(
    "method", [name for name, spec in methods_of("classifier").items() if spec.strategy.has_network]
)
def test_every_method_goes_on_from_a_step_within_a_task(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: Callable[[str], dict[str, Any]]
) -> None:
    with monkeypatch.context() as patch:
        die_in_step(patch, 22)
        with pytest.raises(Killed):
            recorder(tmp_path / "run", method).learn()
    again = resumed(tmp_path / "run", method)
    assert again.learner.steps == 20
    again.learn()
    assert_equal_trees(outcome(again), uninterrupted(method))


@pytest.mark.parametrize("step", [3, 12, 17])
def test_a_request_to_stop_saves_after_the_step(
    step: int,
    tmp_path: Path,
    uninterrupted: Callable[[str], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = recorder(tmp_path / "run")
    original = found._on_step

    def on_step(event: Any) -> None:
        original(event)
        found.stop_requested = found.learner.steps >= step

    monkeypatch.setattr(found, "_on_step", on_step)
    found.learn()
    assert found.stopped_at == step
    again = resumed(tmp_path / "run", "spacenet")
    assert again.learner.steps == step
    again.learn()
    assert_equal_trees(outcome(again), uninterrupted("spacenet"))


def test_a_request_before_the_first_step_is_granted_after_it(tmp_path: Path) -> None:
    found = recorder(tmp_path / "run")
    found.stop_requested = True
    found.learn()
    assert found.stopped_at == 1
    assert [row["after_task"] for row in rows(tmp_path / "run", "eval")] == ["-1"] * 3


def test_a_request_when_all_is_learned_comes_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = recorder(tmp_path / "run")
    original = found._on_task_end

    def on_task_end(task: int) -> None:
        original(task)
        found.stop_requested = task == 2

    monkeypatch.setattr(found, "_on_task_end", on_task_end)
    found.learn()
    assert found.stopped_at is None
    assert found.result()["steps"] == 36


def test_a_crash_between_a_row_and_its_checkpoint_leaves_no_row_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: Callable[[str], dict[str, Any]]
) -> None:
    original = CsvLog.write

    def write(self: CsvLog, found: Any) -> None:
        original(self, found)
        if self.path.stem == "eval" and found[0]["after_task"] == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(CsvLog, "write", write)
        with pytest.raises(Killed):
            recorder(tmp_path / "run").learn()
    again = resumed(tmp_path / "run", "spacenet")
    again.learn()
    assert_equal_trees(outcome(again), uninterrupted("spacenet"))


def test_a_checkpoint_of_another_run_or_of_other_data_is_refused(tmp_path: Path) -> None:
    recorder(tmp_path / "run").learn()
    state = checkpoint.load(full_checkpoints(RunFolder(tmp_path / "run"))[-1])
    with pytest.raises(CheckpointError, match=r"another run: its config differs from config\.yaml"):
        recorder(tmp_path / "run", "static_sparse").restore(state)
    sequence = blobs()
    features = sequence.tasks[0].train.features.copy()
    features[0, 0] += 1.0
    train = dataclasses.replace(sequence.tasks[0].train, features=features)
    tasks = (dataclasses.replace(sequence.tasks[0], train=train), *sequence.tasks[1:])
    with pytest.raises(CheckpointError, match="the data of blobs is not what it was when the run began"):
        recorder(tmp_path / "run", sequence=dataclasses.replace(sequence, tasks=tasks)).restore(state)


def test_two_checkpoints_are_kept(tmp_path: Path) -> None:
    recorder(tmp_path / "run").learn()
    assert [path.name for path in full_checkpoints(RunFolder(tmp_path / "run"))] == ["step-000000035", "step-000000036"]


# What is written.


def test_accuracies_and_connections_are_those_of_the_events(tmp_path: Path) -> None:
    found = recorder(tmp_path / "run")
    found.learn()
    evaluated = rows(tmp_path / "run", "eval")
    assert [int(row["global_step"]) for row in evaluated] == [0] * 3 + [12] * 3 + [24] * 3 + [36] * 3
    measured = [[row["accuracy"] for row in evaluated if row["after_task"] == after] for after in ("-1", "0", "1", "2")]
    assert [sum(map(bool, row)) for row in measured] == [0, 1, 2, 3]  # class scenario: no future task
    assert [float(value) for value in measured[3]] == found.learner.accuracies() == found.matrix[2]
    assert {row["samples"] for row in evaluated} == {"30"}
    last = [row for row in rows(tmp_path / "run", "connections") if row["after_task"] == "2"]
    assert [(row["layer"], row["owner"], int(row["connections"])) for row in last] == [
        (f"network.{layer}", str(task), count) for layer, count in enumerate((40, 30, 6)) for task in range(3)
    ]
    assert [int(row["free"]) for row in last[::3]] == [8 * 32 - 120, 32 * 24 - 90, 24 * 6 - 18]
    assert [int(row["reserved"]) for row in last[::3]] == [10, 8, 0]  # the last task reserves nothing


def test_what_trackers_get_is_what_progress_says(tmp_path: Path) -> None:
    found, listener = recorder(tmp_path / "run", scenario="domain"), Listener()
    found.trackers = [listener]
    found.learn()
    assert [step for step, _ in listener.logged] == [4, 8, 12, 12, 16, 20, 24, 24, 28, 32, 36, 36]
    ends = [metrics for _, metrics in listener.logged if "cl/accuracy_seen" in metrics]
    matrix = np.array(found.matrix)
    for task, metrics in enumerate(ends):
        assert metrics["cl/accuracy_seen"] == pytest.approx(matrix[task, : task + 1].mean())
        assert [metrics[f"cl/accuracy/task{other}"] for other in range(3)] == list(matrix[task])
        assert metrics["cl/connections"] == 76 * (task + 1)
    assert "cl/bwt" not in ends[0]  # undefined for one task
    assert ends[1]["cl/bwt"] == pytest.approx(matrix[1, 0] - matrix[0, 0])
    assert ends[2]["cl/forgetting_final"] == pytest.approx((matrix[[0, 1], [0, 1]] - matrix[2, :2]).mean())
    written = rows(tmp_path / "run", "progress")
    for (step, metrics), row in zip(listener.logged, written, strict=True):
        assert int(row.pop("global_step")) == step
        assert {key: float(value) for key, value in row.items() if value} == {
            key: value for key, value in metrics.items() if key in row
        }


def test_the_result_says_what_is_undefined_and_why(tmp_path: Path) -> None:
    found = recorder(tmp_path / "run")
    found.learn()
    result = found.result()
    assert result["matrix"][0][1:] == [None, None]
    assert result["fwt"] is None
    assert list(result["undefined"]) == ["fwt"]
    assert "future tasks were not measured" in result["undefined"]["fwt"]
    assert result["acc"] == pytest.approx(np.mean(found.matrix[2]))
    assert result["connections"] == 3 * 76
    assert result["params_dense"] == 8 * 32 + 32 + 32 * 24 + 24 + 24 * 6 + 6
    assert result["params_nonzero_per_task"] == [76 * learned + 32 + 24 + 6 for learned in (1, 2, 3)]
    assert result["layers"]["network.0"]["connections_per_task"] == {"0": 40, "1": 40, "2": 40}
    # 4 bytes for each weight, archived ones included, and for each bias.
    assert result["bytes_parameters"] == 4 * (3 * 76 + 32 + 24 + 6)
    assert result["memory"] == found.learner.strategy.memory()
    json.dumps(result, allow_nan=False)
    domain = recorder(tmp_path / "domain", scenario="domain")
    domain.learn()
    assert domain.result()["undefined"] == {}
    assert domain.result()["fwt"] is not None


def test_topology_events_carry_the_gradient_step_and_running_totals(tmp_path: Path) -> None:
    recorder(tmp_path / "run").learn()
    own = [row for row in rows(tmp_path / "run", "topology") if row["layer"] == "network.2"]
    assert [
        (int(row["global_step"]), row["kind"], row["nnz"], row["grown_total"], row["dropped_total"]) for row in own
    ] == [
        (0, "initial", "0", "0", "0"),
        (0, "allocate", "6", "6", "0"),
        (12, "archive", "0", "6", "6"),
        (12, "allocate", "6", "12", "6"),
        (24, "archive", "0", "12", "12"),
        (24, "allocate", "6", "18", "12"),
    ]
    hidden = [int(row["global_step"]) for row in rows(tmp_path / "run", "topology") if row["kind"] == "rewire"]
    assert sorted(set(hidden)) == [3, 6, 9, 15, 18, 21, 27, 30, 33]


def test_static_sparse_moves_no_connection_whatever_the_options_say(tmp_path: Path) -> None:
    assert OPTIONS.spacenet.rewire
    recorder(tmp_path / "run", "static_sparse").learn()
    assert {row["kind"] for row in rows(tmp_path / "run", "topology")} == {"initial", "allocate", "archive"}


def test_a_method_without_owners_shares_what_the_network_has(tmp_path: Path) -> None:
    found = recorder(tmp_path / "run", "naive")
    layers = found.learner.usage()
    assert [(one.used, one.free, one.neurons) for one in layers] == [(256, 0, 32), (768, 0, 24), (144, 0, 6)]
    assert all(dict(one.owners) == {"shared": one.size} for one in layers)
    assert [one.layer for one in layers] == ["network.0", "network.1", "network.2"]


@pytest.mark.parametrize(("method", "steps"), [("naive", 36), ("packnet", 36 + 2 * 6), ("joint", 12 + 20 + 32)])
def test_steps_are_known_beforehand(method: str, steps: int, tmp_path: Path) -> None:
    # joint: 40, 80 and 120 samples in batches of 16, four times; packnet: two epochs more for all tasks but the last
    found = recorder(tmp_path / "run", method)
    assert found.learner.total_steps == steps
    found.learn()
    assert found.learner.steps == steps


def test_the_checksum_is_of_what_can_be_learned() -> None:
    sequence = blobs()
    assert checksum(sequence) == checksum(blobs())
    assert checksum(sequence) != checksum(blobs("task"))
    first = sequence.tasks[0]
    changed = []
    for part in ("train", "test"):
        for name in ("rows", "labels"):
            samples = getattr(first, part)
            array = getattr(samples, name).copy()
            array[0] += 1
            changed.append(dataclasses.replace(first, **{part: dataclasses.replace(samples, **{name: array})}))
        changed.append(dataclasses.replace(first, **{part: dataclasses.replace(samples, mean=0.5)}))
        changed.append(dataclasses.replace(first, **{part: dataclasses.replace(samples, order=np.arange(8))}))
    found = [checksum(dataclasses.replace(sequence, tasks=(one, *sequence.tasks[1:]))) for one in changed]
    assert len({checksum(sequence), *found}) == len(changed) + 1
