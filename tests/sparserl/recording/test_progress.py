"""The clock and the bar of a run, with a clock that the test turns."""

from __future__ import annotations

import io
import sys
import time

import pytest

from sparserl.recording.progress import RunProgress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_wall_time_adds_up_over_parts(clock: list[float]) -> None:
    progress = RunProgress(10, show=False)
    clock[0] = 103.0
    assert progress.elapsed_s == 3.0
    progress.load(50.0)
    assert progress.elapsed_s == 53.0


def test_speed_is_of_the_time_since_it_was_asked_last(clock: list[float]) -> None:
    progress = RunProgress(1000, show=False)
    clock[0] = 110.0
    progress.start(200)  # a resumed run: neither its steps nor the time to get ready count
    clock[0] = 112.0
    assert progress.timing(300) == {"time/sps": 50.0, "time/elapsed_s": 12.0}
    clock[0] = 116.0
    assert progress.timing(320) == {"time/sps": 5.0, "time/elapsed_s": 16.0}


def test_the_bar_shows_where_the_run_is_and_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = io.StringIO()
    monkeypatch.setattr(sys, "stderr", drawn)
    progress = RunProgress(200, show=True)
    progress.start(50)
    time.sleep(0.15)  # the bar is drawn ten times a second at most
    progress.show(100, {"return": "7"})
    progress.show(120)
    progress.close()
    last = drawn.getvalue().strip().split("\r")[-1]
    assert last.startswith(" 60%") or last.startswith("60%")
    assert "120/200" in last
    assert "return=7" in last


def test_a_hidden_bar_draws_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress = RunProgress(200, show=False)
    progress.start(0)
    progress.show(100, {"return": "7"})
    progress.close()
    assert capsys.readouterr().err == ""
