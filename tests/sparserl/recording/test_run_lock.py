"""The lock of a run folder: one writer, who is named; a dead one is told from a live one."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sparserl.errors import ConfigError
from sparserl.recording import run_lock
from sparserl.recording.run_lock import LOCK, Holder, LockedError, only_writer

HOLDER = """
import sys
from pathlib import Path
from sparserl.recording.run_lock import only_writer
{before}
with only_writer(Path(sys.argv[1])):
    {inside}
    print("holds it", flush=True)
    sys.stdin.read()
"""


def holder(path: Path, *, before: str = "", inside: str = "pass") -> subprocess.Popen[str]:
    """A process that holds the lock of a folder until its input ends."""
    words = [sys.executable, "-P", "-c", HOLDER.format(before=before, inside=inside), str(path)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    while line and line != "holds it\n":
        line = process.stdout.readline()
    assert line == "holds it\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.communicate()
    assert process.returncode == 0


def test_a_second_writer_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    first = holder(tmp_path)
    with pytest.raises(LockedError) as refused, only_writer(tmp_path):
        pass
    assert f"{tmp_path} is being written by process {first.pid} on " in str(refused.value)
    assert "\n" not in str(refused.value)
    end(first)
    with only_writer(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
        with pytest.raises(LockedError, match=f"process {os.getpid()} on "), only_writer(tmp_path):  # not even itself
            pass
        assert (tmp_path / LOCK).exists()  # the refused one did not remove it
    assert not list(tmp_path.iterdir())


def test_killing_the_holder_frees_the_lock_and_the_next_one_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = holder(tmp_path)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    with only_writer(tmp_path):
        said = capsys.readouterr().out
    assert said.startswith(f"{tmp_path} was left by process {first.pid} on ")
    assert said.count("\n") == 1  # at once, since this machine knows that it is dead
    with only_writer(tmp_path):
        assert capsys.readouterr().out == ""


# Whoever is killed in the middle of a fork leaves a child that has done nothing yet, so the child says that it runs.
SPLIT_OFF = "import os, time; begun = os.pipe(); child = os.fork(); child"
WRITE_PID = "os.read(begun[0], 1); print(child, file=open(PIDS, 'w'))"


@pytest.mark.parametrize(
    "child",
    [
        "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, file=open(PIDS, 'w'))",
        f"{SPLIT_OFF} or (os.write(begun[1], b'.'), os.execlp('sleep', 'it', '60')); {WRITE_PID}",
        f"{SPLIT_OFF} or (os.write(begun[1], b'.'), time.sleep(60)); {WRITE_PID}",
    ],
    ids=["started", "split off, then another program", "split off"],
)
def test_a_child_does_not_keep_the_lock(child: str, tmp_path: Path) -> None:
    run, pids = tmp_path / "run", tmp_path / "pids"
    run.mkdir()
    first = holder(run, before=f"PIDS = {str(pids)!r}", inside=child)
    first.send_signal(signal.SIGKILL)
    first.wait()
    pid = int(pids.read_text())
    try:
        os.kill(pid, 0)  # it lives
        with only_writer(run):
            pass
    finally:
        os.kill(pid, signal.SIGKILL)
        first.communicate()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_leaves_the_block_removes_nothing(tmp_path: Path) -> None:
    with only_writer(tmp_path):
        child = multiprocessing.get_context("fork").Process(target=sys.exit)
        child.start()
        child.join()
        with pytest.raises(LockedError), only_writer(tmp_path):
            pass


def left_by(path: Path, **changes: str) -> Holder:
    """A lock file of a process on another machine."""
    left = replace(Holder.here(), **changes)
    (path / LOCK).write_text(json.dumps(asdict(left)))
    return left


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for hundredths of a second in place of ten seconds."""
    monkeypatch.setattr(run_lock, "LEASE_S", 0.05)
    monkeypatch.setattr(run_lock, "BEAT_S", 0.01)


@pytest.mark.usefixtures("brief")
def test_what_another_machine_left_is_taken_over_after_a_while(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = left_by(tmp_path, host="elsewhere", boot="another start")
    with only_writer(tmp_path):
        said = capsys.readouterr().out.splitlines()
    assert said == [
        f"{tmp_path} was last written by {left}; waiting 0.05 s to see whether it still is",
        f"{tmp_path} was left by {left}, which is gone without an orderly end",
    ]


@pytest.mark.usefixtures("brief")
def test_a_writer_on_another_machine_that_lives_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = left_by(tmp_path, host="elsewhere", boot="another start")
    monkeypatch.setattr(run_lock.time, "sleep", lambda _: os.utime(tmp_path / LOCK, ns=(0, 0)))  # it beats
    with pytest.raises(LockedError, match=" on elsewhere since "), only_writer(tmp_path):
        pass
    assert json.loads((tmp_path / LOCK).read_text()) == asdict(left)


@pytest.mark.usefixtures("brief")
def test_where_the_file_system_has_no_locks_the_touches_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without(file: int, operation: int) -> None:
        raise OSError(run_lock.errno.ENOLCK, "no locks")

    monkeypatch.setattr(run_lock.fcntl, "flock", without)
    first = holder(tmp_path, before="import sparserl.recording.run_lock as lock; lock.BEAT_S = 0.001")
    with pytest.raises(LockedError, match=f"process {first.pid} on "), only_writer(tmp_path):
        pass
    end(first)
    capsys.readouterr()
    left_by(tmp_path)
    with only_writer(tmp_path):
        assert capsys.readouterr().out.count("\n") == 2


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "7", '{"pid": 1}', "[" * 5000, json.dumps({**asdict(Holder.here()), "pid": "x"})]
)
def test_a_file_that_names_nobody_is_taken(content: str, tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(content)
    with only_writer(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_locked_is_refused(tmp_path: Path) -> None:
    for make in (Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        run = tmp_path / "run"
        run.mkdir()
        make(run / LOCK)
        with pytest.raises(ConfigError, match=LOCK), only_writer(run):
            pass
        run.rename(run.with_name(f"tried {len(list(tmp_path.iterdir()))}"))
    with pytest.raises(ConfigError, match="No such file"), only_writer(tmp_path / "none"):
        pass
