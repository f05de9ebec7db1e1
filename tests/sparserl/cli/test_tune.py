"""`sparserl tune`: what a file searches, what is tried, that nothing is trained twice and nothing that died is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.runs import start
from support.stand_in import calls, give_order
from support.tune_files import DENSITY, SMALL, tune_file

from sparserl.cli import main
from sparserl.errors import ConfigError
from sparserl.sweep.process import JobProcess
from sparserl.sweep.tune_file import Range, TuneFile, load_tune_file
from sparserl.sweep.tune_study import JOURNAL, TRIAL_LOCK, Trial, open_study

BOTH = {**SMALL["space"], "agent.batch_size": {"low": 16, "high": 64}}


def trials(path: Path, out: Path) -> list[Trial]:
    with open_study(load_tune_file(path), out, 0) as study:
        return study.trials


# What is tried.


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> TuneFile:
    return load_tune_file(tune_file(tmp_path_factory.mktemp("small"), space=BOTH))


def points(file: TuneFile, out: Path, count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """What one process tries that tells the study at once; the more connections the better."""
    out.mkdir(exist_ok=True)
    with open_study(file, out, seed) as study:
        while (trial := study.claim(count)) is not None:
            study.tell(trial.number, trial.point[DENSITY])
        assert all(trial.status == "done" for trial in study.trials)
        return [dict(trial.point) for trial in study.trials]


def test_what_is_tried_repeats_also_after_a_break(small: TuneFile, tmp_path: Path) -> None:
    once = points(small, tmp_path / "once", 13)  # the first 10 are drawn without a look at values
    assert len(once) == 13
    assert all(0.2 <= point[DENSITY] <= 1 and 16 <= point["agent.batch_size"] <= 64 for point in once)
    assert {type(point["agent.batch_size"]) for point in once} == {int}
    assert len({point[DENSITY] for point in once}) == 13
    for count in (3, 12, 13):
        again = points(small, tmp_path / "again", count)
        assert again == once[:count]
    assert points(small, tmp_path / "other", 3, seed=1)[0] != once[0]


def test_log_draws_evenly_in_the_logarithm(small: TuneFile, tmp_path: Path) -> None:
    below = {}
    for log in (False, True):
        file = replace(small, space={DENSITY: Range(1e-6, 1.0, log=log)})
        drawn = [point[DENSITY] for point in points(file, tmp_path / str(log), 10)]
        below[log] = sum(value < 1e-3 for value in drawn)
    assert below[False] == 0
    assert 2 <= below[True] <= 8


def test_what_is_tried_follows_the_values(small: TuneFile, tmp_path: Path) -> None:
    more = points(small, tmp_path / "more", 12)
    fewer = points(replace(small, direction="minimize"), tmp_path / "fewer", 12)
    assert fewer[:10] == more[:10]
    assert fewer[10:] != more[10:]


def test_the_best_is_that_of_the_direction(small: TuneFile, tmp_path: Path) -> None:
    for direction, best in (("maximize", 3.0), ("minimize", 1.0)):
        out = tmp_path / direction
        out.mkdir()
        with open_study(replace(small, direction=direction), out, 0) as study:
            assert study.best is None
            for value in (2.0, None, 3.0, 1.0):
                trial = study.claim(9)
                assert trial is not None
                study.tell(trial.number, value)
            assert study.best is not None
            assert study.best.value == best
            assert [trial.status for trial in study.trials] == ["done", "failed", "done", "done"]


def test_a_trial_whose_process_is_gone_is_taken_over_and_one_that_is_trained_is_left(
    small: TuneFile, tmp_path: Path
) -> None:
    once = points(small, tmp_path / "once", 3)
    with open_study(small, tmp_path, 0) as study:
        claimed = [study.claim(3), study.claim(3)]
    assert [trial.point for trial in claimed if trial] == once[:2]
    # Both are nobody's now; another process takes the second.
    holding = f"import filelock; lock = filelock.FileLock({str(tmp_path / TRIAL_LOCK.format(1))!r}); lock.acquire()"
    with subprocess.Popen(
        [sys.executable, "-c", f"{holding}; print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with open_study(small, tmp_path, 0) as study:
            taken = [study.claim(3) for _ in range(3)]
            assert [trial and trial.number for trial in taken] == [0, 2, None]
            assert [trial.point for trial in study.trials] == once
        other.communicate(b"\n")
    with open_study(small, tmp_path, 0) as study:
        assert [trial and trial.number for trial in (study.claim(3) for _ in range(4))] == [0, 1, 2, None]


def test_a_process_that_died_while_it_drew_disturbs_nothing(small: TuneFile, tmp_path: Path) -> None:
    once = points(small, tmp_path / "once", 13)
    assert points(small, tmp_path, 11) == once[:11]
    with open_study(small, tmp_path, 0) as study:
        study.claim(13)
    journal = tmp_path / JOURNAL
    lines = journal.read_text().splitlines(keepends=True)
    assert "param_name" in lines[-1]
    journal.write_text("".join(lines[:-1]))
    assert points(small, tmp_path, 13) == once


CHANGED = {
    "base": {"base": {**SMALL["base"], "total_steps": 301}},
    "space": {"space": {**BOTH, "agent.batch_size": {"low": 16, "high": 65}}},
    "seeds": {"seeds": [0]},
    "direction": {"direction": "minimize"},
    "objective": {"objective": "return_last"},
}


@pytest.mark.parametrize("key", CHANGED)
def test_a_changed_file_is_refused(key: str, small: TuneFile, tmp_path: Path) -> None:
    points(small, tmp_path, 1)
    changed = load_tune_file(tune_file(tmp_path, **{"space": BOTH, **CHANGED[key]}))
    message = f"{tmp_path} holds a search with another {key}; choose another --out, or give the search as it was"
    with pytest.raises(ConfigError, match=message), open_study(changed, tmp_path, 0):
        pass
    assert len(points(small, tmp_path, 2)) == 2


def test_another_seed_is_refused(small: TuneFile, tmp_path: Path) -> None:
    points(small, tmp_path, 1)
    with pytest.raises(ConfigError, match="another seed"), open_study(small, tmp_path, 1):
        pass


def test_a_journal_that_was_cut_within_a_line_loses_that_line_alone(small: TuneFile, tmp_path: Path) -> None:
    with open_study(small, tmp_path, 0) as study:
        first = study.claim(3)
        assert first is not None
        study.tell(first.number, 1.0)
    journal = tmp_path / JOURNAL
    whole = journal.read_bytes()
    for cut in (1, 15):
        journal.write_bytes(whole[:-cut])
        with open_study(small, tmp_path, 0) as study:
            again = study.claim(3)
            assert again is not None
            assert (again.number, again.point) == (first.number, first.point)
            study.tell(again.number, 1.0)
        with open_study(small, tmp_path, 0) as study:
            assert [trial.value for trial in study.trials] == [1.0]


def test_a_damaged_journal_is_one_line(small: TuneFile, tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text("no journal\nat all\n")
    with pytest.raises(ConfigError, match="is not a journal of Optuna"), open_study(small, tmp_path, 0):
        pass


# Training it.


def words_of(path: Path, out: Path, *, count: int, workers: int = 1) -> list[str]:
    return ["tune", str(path), "--trials", str(count), "--workers", str(workers), "--out", str(out)]


def test_a_trial_is_the_mean_over_its_seeds(stand_in: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tune_file(tmp_path)
    assert main(words_of(path, stand_in, count=2)) == 0
    found = trials(path, stand_in)
    assert [trial.value for trial in found] == [pytest.approx(trial.point[DENSITY] + 1) for trial in found]
    assert len(calls(stand_in)) == 4
    best = max(found, key=lambda trial: trial.point[DENSITY])
    folder = stand_in / load_tune_file(path).jobs(best.point)[0].folder
    printed = capsys.readouterr().out
    assert f"best: trial {best.number}; train it with another seed: " in printed
    assert f"sparserl train --config {folder}/config.yaml --seed 3" in printed
    # The same command has nothing to do, and one that asks for more goes on.
    assert main(words_of(path, stand_in, count=2)) == 0
    assert len(calls(stand_in)) == 4
    assert main(words_of(path, stand_in, count=3, workers=3)) == 0
    assert len(calls(stand_in)) == 6
    assert trials(path, stand_in)[:2] == found


def test_equal_configs_are_trained_once(stand_in: Path, tmp_path: Path) -> None:
    path = tune_file(tmp_path, space={DENSITY: [0.5]}, seeds=1)
    assert main(words_of(path, stand_in, count=4, workers=3)) == 0
    assert [trial.value for trial in trials(path, stand_in)] == [0.5] * 4
    assert len(calls(stand_in)) == 1


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ("fail s2", "sparserl: it broke; see "),
        ("nan", "its return_last10 is no number in one of its runs"),
    ],
)
def test_a_failed_run_fails_its_trial_alone(
    order: str, reason: str, stand_in: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tune_file(tmp_path)
    give_order(stand_in, order)
    assert main(words_of(path, stand_in, count=1, workers=2)) == 1
    assert f"sparserl: trial 0 failed: {reason}" in capsys.readouterr().out
    give_order(stand_in)
    assert main(words_of(path, stand_in, count=2)) == 1
    assert [trial.status for trial in trials(path, stand_in)] == ["failed", "done"]


def test_values_that_do_not_go_together_fail_their_trial(
    stand_in: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = {"agent.learning_starts": [10, 200], "total_steps": [300, 150], DENSITY: {"low": 0.2, "high": 1}}
    path = tune_file(tmp_path, space=space, seeds=1)
    assert main(words_of(path, stand_in, count=8)) == 1
    for trial in trials(path, stand_in):
        fits = trial.point["agent.learning_starts"] < trial.point["total_steps"]
        assert trial.status == ("done" if fits else "failed")
    assert "the run ends at step 150, before learning starts at 200" in capsys.readouterr().out


def test_an_unknown_objective_is_one_line_and_loses_nothing(
    stand_in: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_of(tune_file(tmp_path, objective="return_lats10"), stand_in, count=1)) == 2
    refused = capsys.readouterr().err
    assert "result.json: unknown objective 'return_lats10'; did you mean 'return_last10'?" in refused
    assert refused.count("\n") == 1
    assert main(words_of(tune_file(tmp_path, objective="matrix"), stand_in, count=1)) == 2
    assert "unknown objective 'matrix'" in capsys.readouterr().err
    assert main(words_of(tune_file(tmp_path), stand_in, count=1)) == 0
    assert len(calls(stand_in)) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_and_goes_on(number: signal.Signals, stand_in: Path, tmp_path: Path) -> None:
    give_order(stand_in, "wait")
    path = tune_file(tmp_path)

    def ignore(number: int, frame: Any) -> None: ...

    def interrupt() -> None:
        deadline = time.monotonic() + 30
        while len(list(stand_in.glob("*/checkpoints/*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    before = signal.signal(number, ignore)
    try:
        thread.start()
        assert main(words_of(path, stand_in, count=3, workers=2)) == 130
        assert signal.getsignal(number) is ignore
    finally:
        signal.signal(number, before)
    thread.join()
    left = trials(path, stand_in)
    assert [trial.status for trial in left] == ["begun"]
    give_order(stand_in)
    assert main(words_of(path, stand_in, count=3, workers=2)) == 0
    assert [call[0] for call in calls(stand_in)] == ["begin"] * 2 + ["go_on"] * 2 + ["begin"] * 4
    found = trials(path, stand_in)
    assert [trial.status for trial in found] == ["done"] * 3
    assert found[0].point == left[0].point


def test_a_run_that_outlived_its_search_is_waited_for(stand_in: Path, tmp_path: Path) -> None:
    give_order(stand_in, "wait")
    path = tune_file(tmp_path, seeds=1)
    file = load_tune_file(path)
    with open_study(file, stand_in, 0) as study:
        trial = study.claim(1)
    assert trial is not None
    job = file.jobs(trial.point)[0]
    process = JobProcess.start(job, stand_in / job.folder)
    assert process is not None
    threading.Timer(0.3, give_order, (stand_in,)).start()
    assert main(words_of(path, stand_in, count=1)) == 0
    process.wait()
    assert len(calls(stand_in)) == 1
    assert [trial.value for trial in trials(path, stand_in)] == [pytest.approx(trial.point[DENSITY])]


@pytest.mark.slow
def test_a_search_that_was_killed_ends_as_one_that_was_not(tmp_path: Path) -> None:
    base = {
        **SMALL["base"],
        **{"log_every_steps": 100, "checkpoint_every_steps": 100, "eval": {"every_steps": 300, "episodes": 1}},
        "agent": {"learning_starts": 100, "net_arch": [32, 32], "batch_size": 16, "buffer_size": 400},
    }
    path = tune_file(tmp_path, base=base, seeds=1)
    killed, once = tmp_path / "killed", tmp_path / "once"
    with start(words_of(path, killed, count=1)) as process:
        deadline = time.monotonic() + 120
        while not list(killed.glob("*/checkpoints/step-*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        runs = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in (process.pid, *map(int, runs)):
            os.kill(pid, signal.SIGKILL)
    assert [trial.status for trial in trials(path, killed)] == ["begun"]
    assert main(words_of(path, killed, count=1)) == 0
    assert main(words_of(path, once, count=1)) == 0
    assert trials(path, killed) == trials(path, once)
    (run,) = once.glob("*/eval.csv")
    assert run.read_text() == (killed / run.parent.name / "eval.csv").read_text()
