"""Kills runs at random moments, resumes them, and compares them with runs that nothing stopped.

    python tests/kills.py --kills 200 --seed 0

Every kind of run, at one and at two threads, by SIGKILL; a run may be killed several times. `test_kills.py` does the
same with a few kills. Exit status 1 if a run differs or cannot go on.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from support.runs import logs, state_of
from support.trees import differences

from sparserl.cli import main
from sparserl.kernels import plan

THREADED_FROM = 1 << 14
"""Multiply-adds from which passes take several threads here, so that small networks cross it while they are pruned."""
AT_THE_START = 0.2
"""Share of the kills within the first second of a process; the others come when there is a checkpoint."""

AGENT = (
    *("--env", "InvertedPendulum-v5", "--total-steps", "600", "--agent.learning-starts", "100"),
    *("--agent.net-arch", "32", "32", "--agent.batch-size", "16", "--agent.buffer-size", "400"),
    *("--eval.every-steps", "200", "--eval.episodes", "1", "--log-every-steps", "50"),
    *("--checkpoint-every-steps", "90", "--topology-snapshots", "3"),
)
PRUNED = ("--topology.method", "gmp", "--topology.density", "0.1", "--topology.update-interval", "50")
SEQUENCE = {
    "tasks": [
        {"name": f"gravity {gravity}", "env": "InvertedPendulum-v5", "steps": 250, "modification": {"gravity": gravity}}
        for gravity in (0.5, 1.5)
    ]
}
SWEEP = {
    "base": {
        "algo": "ds_td3",
        "env": "InvertedPendulum-v5",
        "total_steps": 900,
        "checkpoint_every_steps": 100,
        "agent": {"learning_starts": 100, "net_arch": [32, 32], "batch_size": 16, "buffer_size": 400},
        "eval": {"every_steps": 300, "episodes": 1},
    },
    "grid": {"topology.density": [0.5, 0.2]},
    "seeds": [3],
}
SEQUENCE_FLAGS = (
    *("--sequence", "sequence.yaml", "--algo", "ds_sac", "--agent.learning-starts", "50"),
    *("--agent.net-arch", "16", "16", "--agent.batch-size", "16", "--agent.buffer-size", "400"),
    *("--eval.every-steps", "150", "--eval.episodes", "1", "--eval.deterministic-episodes", "1"),
    *("--log-every-steps", "100", "--checkpoint-every-steps", "90"),
)
DIGITS = ("--sequence", "split_digits", "--checkpoint-every-steps", "20", "--learner.epochs", "2")

KINDS: dict[str, tuple[str, ...]] = {
    "ds_td3": ("train", "--algo", "ds_td3", *AGENT, *PRUNED),
    "ds_sac": (
        *("train", "--algo", "ds_sac", *AGENT, "--topology.method", "rigl", "--topology.density", "0.3"),
        *("--topology.update-interval", "40", "--wrappers.normalize-observations", "running"),
    ),
    "td3": ("train", "--algo", "td3", *AGENT),
    "sac": ("train", "--algo", "sac", *AGENT),
    "several envs": (
        *("train", "--algo", "ds_td3", *AGENT, *PRUNED, "--n-envs", "2", "--agent.train-freq", "2"),
        *("--agent.gradient-steps", "-1", "--wrappers.normalize-observations", "running"),
    ),
    "spacenet": ("continual", "--method", "spacenet", *DIGITS),
    "packnet": ("continual", "--method", "packnet", "--scenario", "task", *DIGITS),
    "replay": ("continual", "--method", "replay", *DIGITS),
    "fit": ("fit", "digits", "--learner.epochs", "8", "--ensemble", "2", "--checkpoint-every-steps", "20"),
    "tasks finetune": ("continual", "--method", "finetune", *SEQUENCE_FLAGS),
    "tasks spacenet": ("continual", "--method", "spacenet", *SEQUENCE_FLAGS),
    "sweep": ("sweep", "sweep.yaml", "--workers", "2"),
}
"""Kind of run -> words after `sparserl`; files are those of `write_files`."""


@dataclass
class Tally:
    """What became of the kills.

    Attributes:
        killed: Kills of processes that were alive.
        before_checkpoint: Kills after which a run had to begin anew, because it had no checkpoint.
        runs: Runs compared.
        failures: What differed or could not go on.
    """

    killed: int = 0
    before_checkpoint: int = 0
    runs: int = 0
    failures: list[str] = field(default_factory=list)


def write_files(folder: Path) -> None:
    """The files that `KINDS` name."""
    (folder / "sequence.yaml").write_text(yaml.safe_dump(SEQUENCE))
    (folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))


def fork(words: Sequence[str], folder: Path, log: Path) -> int:
    """Starts `sparserl` with these words in a child that works in `folder`; returns its process id."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        os.setsid()
        os.chdir(folder)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        plan.PARALLEL_FROM = THREADED_FROM
        status = main(list(words))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def ended(child: int, within: float, after: Callable[[], bool] = lambda: True) -> int | None:
    """Exit status of a child (minus the signal if one ended it); None if it runs on `within` seconds after an event."""
    deadline: float | None = None
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if deadline is None and after():
            deadline = time.monotonic() + within
        if deadline is not None and time.monotonic() >= deadline:
            return None
        time.sleep(0.005)


class Job:
    """One run that is killed now and then.

    Args:
        kind: Key of `KINDS`.
        threads: CPU threads.
        folder: Working folder, with the files of `write_files`.
        name: Of the run's folder in it.
    """

    def __init__(self, kind: str, threads: int, folder: Path, name: str):
        self.kind, self.threads, self.folder = kind, threads, folder
        self.path, self.log = folder / name, folder / f"{name}.out"
        self.is_sweep = kind == "sweep"

    def words(self) -> list[str]:
        """What begins the run, or goes on with it."""
        command, *rest = KINDS[self.kind]
        if self.is_sweep:
            return [command, *rest, "--out", str(self.path)]
        if self.has_checkpoint():
            return [command, "--resume", str(self.path), "--no-progress"]
        shutil.rmtree(self.path, ignore_errors=True)
        return [command, *rest, "--threads", str(self.threads), "--run-dir", str(self.path), "--no-progress"]

    def has_checkpoint(self) -> bool:
        """Whether there is anything to go on from; in a sweep, for any of its runs."""
        pattern = "*/checkpoints/step-*" if self.is_sweep else "checkpoints/step-*"
        return any(path.suffix == "" for path in self.path.glob(pattern))

    def start(self) -> int:
        """Begins the run, or goes on with it, in a child."""
        return fork(self.words(), self.folder, self.log)

    def kill(self, child: int, rng: random.Random) -> None:
        """Kills a child; of a sweep, this or one of the runs that it started."""
        victims = [child]
        if self.is_sweep:
            runs = [one.pid for one in psutil.Process(child).children()]
            victims = [rng.choice([child, *runs])]
        os.kill(victims[0], signal.SIGKILL)

    def seconds(self) -> float:
        """What the run takes once kernels are compiled, its end included; of a sweep, the longest of its runs."""
        results = self.path.rglob("result.json")
        return 0.2 + max(json.loads(result.read_text())["wall_s"] for result in results)

    def finish(self) -> int:
        """Goes on until the run has ended; returns its exit status."""
        deadline = time.monotonic() + 300
        status = ended(self.start(), within=300)
        # Runs of a killed sweep train on: until they have ended, the next one says that they are taken.
        while self.is_sweep and status != 0 and time.monotonic() < deadline:
            time.sleep(1.0)
            status = ended(self.start(), within=300)
        return -1 if status is None else status


def outcome(path: Path) -> dict[str, Any]:
    """All that a finished run leaves which time does not decide."""
    assert (path / "DONE").exists(), f"{path} is not finished"
    assert (path / "plot.png").exists(), f"{path} has no plot"
    left = [str(file) for file in path.rglob("*") if file.suffix in (".tmp", ".old", ".gone")]
    assert not left, f"left behind: {left}"
    result = json.loads((path / "result.json").read_text())
    for name in ("wall_s", "steps_per_second", "cpu_s", "memory_peak_bytes", "bytes_indices"):
        result.pop(name, None)
    states = {one.name: state_of(one) for one in sorted((path / "checkpoints").iterdir())}
    return {"logs": logs(path), "result": result, "checkpoints": states}


def compared(reference: Path, path: Path) -> list[str]:
    """How a run, or each run of a sweep, differs from one that nothing stopped."""
    if (reference / "config.yaml").exists():
        return differences(outcome(reference), outcome(path))
    runs = [one.name for one in sorted(reference.iterdir()) if one.is_dir()]
    return [line for name in runs for line in differences(outcome(reference / name), outcome(path / name), name)]


def campaign(
    kills: int, seed: int, folder: Path, kinds: Sequence[str], threads: Sequence[int], kills_a_run: int
) -> Iterator[Tally]:
    """Kills runs until so many were killed; yields the tally after each run.

    Args:
        kills: Number of kills.
        seed: Of the moments.
        folder: Where everything is written.
        kinds: Keys of `KINDS`, in turn.
        threads: Numbers of CPU threads, in turn.
        kills_a_run: Kills of one run at most; then it is left to end.
    """
    write_files(folder)
    # Once, so that a run begins soon after its fork: what it imports and loads is here then.
    for name in ("train", "continual", "sweep"):
        importlib.import_module(f"sparserl.cli.{name}")
    for kind, less in (("ds_sac", ("--total-steps", "150")), ("spacenet", ("--tasks", "2", "--learner.epochs", "1"))):
        where = ("--run-dir", str(folder / f"short-{kind}"))
        assert main([*KINDS[kind], *less, "--threads", "1", "--no-progress", *where]) == 0
    rng = random.Random(seed)
    tally = Tally()
    references: dict[tuple[str, int], tuple[Path, float]] = {}
    # Neighbours differ in both. A sweep sets the threads of its runs itself.
    grid = [
        (kind, threads[(place + turn) % len(threads)])
        for turn in range(len(threads))
        for place, kind in enumerate(kinds)
        if kind != "sweep" or turn == 0
    ]
    while tally.killed < kills:
        kind, count = grid[tally.runs % len(grid)]
        if (kind, count) not in references:
            job = Job(kind, count, folder, f"whole-{kind.replace(' ', '-')}-{count}")
            status = job.finish()
            if status:
                raise RuntimeError(f"{kind} ended with {status} though nothing stopped it: {job.log}")
            references[kind, count] = job.path, job.seconds()
        reference, lasts = references[kind, count]
        job = Job(kind, count, folder, f"killed-{tally.runs:03d}")
        for _ in range(rng.randint(1, kills_a_run)):
            child = job.start()
            if rng.random() < AT_THE_START:
                status = ended(child, within=rng.uniform(0.0, 1.0))
            else:
                status = ended(child, within=rng.uniform(0.0, lasts), after=job.has_checkpoint)
            if status is not None:
                break
            job.kill(child, rng)
            tally.killed += 1
            ended(child, within=300)
            tally.before_checkpoint += not job.has_checkpoint()
        status = 0 if not job.is_sweep and (job.path / "DONE").exists() else job.finish()
        what = f"{kind}, {count} thread(s), {job.log}"
        try:
            found = compared(reference, job.path) if status == 0 else [f"exit status {status}"]
        except Exception as error:
            found = [f"{type(error).__name__}: {error}"]
        tally.runs += 1
        if found:
            tally.failures.append("\n  ".join([what, *found[:8]]))
        else:
            shutil.rmtree(job.path)
        yield tally


def run() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--kills-a-run", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="kept; a temporary one that goes if all is well otherwise")
    options = parser.parse_args()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="kills-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    tally = Tally()
    shown = 0
    chosen = (options.kinds, options.threads, options.kills_a_run)
    for tally in campaign(options.kills, options.seed, folder, *chosen):
        print(f"{tally.killed} kills, {tally.runs} runs, {len(tally.failures)} differ", flush=True)
        for failure in tally.failures[shown:]:
            print(f"FAILED {failure}", flush=True)
        shown = len(tally.failures)
    print(
        f"{tally.killed} kills of {tally.runs} runs, {tally.before_checkpoint} of them before the first checkpoint: "
        f"{tally.runs - len(tally.failures)} runs equal to the uninterrupted one, {len(tally.failures)} not"
    )
    if not tally.failures and options.folder is None:
        shutil.rmtree(folder)
    return int(bool(tally.failures))


if __name__ == "__main__":
    sys.exit(run())
