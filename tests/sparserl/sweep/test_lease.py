"""Of several machines that see a folder one trains a run, as long as it says so."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from sparserl.sweep import lease as job_lease
from sparserl.sweep.lease import Lease
from sparserl.sweep.process import TakenError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_lease, "BEAT_S", 0.1)
    monkeypatch.setattr(job_lease, "LEASE_S", 0.8)


def in_a_thread(lease: Lease) -> threading.Thread:
    thread = threading.Thread(target=lease.__enter__, daemon=True)
    thread.start()
    return thread


def test_a_run_that_nobody_trains_is_had_at_once_and_given_back(tmp_path: Path) -> None:
    with Lease(tmp_path / "new" / "run") as lease:
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["run.owner"]
        lease.beat()
    assert not list((tmp_path / "new").iterdir())


def test_an_owner_that_beats_keeps_it_until_it_ends(tmp_path: Path) -> None:
    second = Lease(tmp_path / "run")
    with Lease(tmp_path / "run") as first:
        thread = in_a_thread(second)
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            first.beat()
            time.sleep(0.02)
        assert thread.is_alive()
    thread.join()
    second.beat()
    with pytest.raises(TakenError):
        first.beat()


def test_an_owner_that_is_gone_is_followed(tmp_path: Path) -> None:
    gone, second = Lease(tmp_path / "run"), Lease(tmp_path / "run")
    gone.__enter__()
    with second:
        second.beat()
        with pytest.raises(TakenError):  # it was not gone after all
            gone.beat()
        gone.__exit__(None, None, None)
        second.beat()
    assert not list(tmp_path.iterdir())


def test_who_waits_may_give_up(tmp_path: Path) -> None:
    def give_up() -> None:
        raise InterruptedError

    with Lease(tmp_path / "run") as first:
        with pytest.raises(InterruptedError):
            Lease(tmp_path / "run", give_up).__enter__()
        first.beat()


def test_one_of_many_follows(tmp_path: Path) -> None:
    Lease(tmp_path / "run").__enter__()
    leases = [Lease(tmp_path / "run") for _ in range(5)]
    entered: list[Lease] = []
    beating = threading.Event()

    def enter(lease: Lease) -> None:
        with lease:
            entered.append(lease)
            while not beating.wait(0.02):
                lease.beat()

    threads = [threading.Thread(target=enter, args=(lease,), daemon=True) for lease in leases]
    for thread in threads:
        thread.start()
    time.sleep(2.0)
    assert len(entered) == 1
    beating.set()
    for thread in threads:
        thread.join()
    assert len(entered) == 5  # one after the other, each at once after the one before
