"""The replay buffer on disk: every kept checkpoint gives back exactly what the buffer held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer

from sparserl.agents.replay.batch import sample
from sparserl.agents.replay.buffer import AdaptiveReplayBuffer, DynamicCapacity
from sparserl.agents.replay.log import ARRAYS, ReplayLog
from sparserl.errors import CheckpointError
from sparserl.recording import checkpoint

OBS, ACTION = spaces.Box(-9, 9, (3,), np.float64), spaces.Box(-1, 1, (2,), np.float32)


def buffer(size: int = 10, n_envs: int = 1) -> ReplayBuffer:
    return ReplayBuffer(size * n_envs, OBS, ACTION, "cpu", n_envs=n_envs)


def fill(store: ReplayBuffer, count: int, rng: np.random.Generator) -> None:
    """Random transitions; some end by themselves, some by a time limit."""
    n = store.n_envs
    for _ in range(count):
        if isinstance(store, AdaptiveReplayBuffer):
            store.note_policy_actions(rng.normal(size=(n, 2)).astype(np.float32))
        done, timeout = rng.random(n) < 0.3, rng.random(n) < 0.5
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": bool(t)} for t in timeout]
        store.add(
            rng.normal(size=(n, 3)), rng.normal(size=(n, 3)), rng.normal(size=(n, 2)), rng.normal(size=n), done, infos
        )


def content(store: ReplayBuffer) -> dict[str, np.ndarray]:
    return {name: getattr(store, name).copy() for name in ARRAYS}


def check(store: ReplayBuffer, expected: dict[str, np.ndarray]) -> None:
    for name in ARRAYS:
        assert getattr(store, name).dtype == expected[name].dtype
        assert np.array_equal(getattr(store, name), expected[name]), name


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("every", [1, 4, 10, 13])
def test_each_kept_checkpoint_is_restored_exactly_while_the_buffer_wraps(
    every: int, n_envs: int, tmp_path: Path
) -> None:
    rng, store = np.random.default_rng(every), buffer(10, n_envs)
    log = ReplayLog(tmp_path, store)
    kept: list[tuple[list[dict[str, Any]], int, dict[str, np.ndarray]]] = []
    for count in range(every, max(30, 3 * every), every):
        fill(store, every, rng)
        kept = [*kept, (log.append(count), count, content(store))][-2:]
        log.remove_except([part for parts, _, _ in kept for part in parts])
        assert {path.name for path in tmp_path.iterdir()} == {part["name"] for parts, *_ in kept for part in parts}
        for parts, added, expected in kept:
            other = buffer(10, n_envs)
            restored = ReplayLog(tmp_path, other)
            restored.restore(parts, added)
            check(other, expected)
            assert (other.pos, other.full) == (added % 10, added >= 10)
            assert restored.parts == parts


def test_a_restored_log_goes_on_like_the_first(tmp_path: Path) -> None:
    store = buffer()
    log = ReplayLog(tmp_path, store)
    fill(store, 7, np.random.default_rng(0))
    parts = log.append(7)
    other = buffer()
    continued = ReplayLog(tmp_path, other)
    continued.restore(parts, 7)
    for one in (store, other):
        fill(one, 6, np.random.default_rng(1))
    assert continued.append(13) == log.append(13)
    check(other, content(store))
    np.random.seed(0)
    first = store.sample(5)
    np.random.seed(0)
    assert all(np.array_equal(a, b) for a, b in zip(first[:5], other.sample(5)[:5], strict=True))


def test_a_checkpoint_writes_only_what_is_new(tmp_path: Path) -> None:
    store, rng = buffer(100), np.random.default_rng(0)
    log = ReplayLog(tmp_path, store)
    fill(store, 30, rng)
    log.append(30)
    first = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    fill(store, 5, rng)
    parts = log.append(35)
    assert [(part["start"], part["stop"]) for part in parts] == [(0, 30), (30, 35)]
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert log.append(35) == parts  # nothing new, no new file
    assert len(list(tmp_path.iterdir())) == 2


def test_nothing_added_is_no_file(tmp_path: Path) -> None:
    assert ReplayLog(tmp_path, buffer()).append(0) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["edit", "truncate", "remove"])
def test_a_damaged_part_is_refused_and_the_buffer_unchanged(damage: str, tmp_path: Path) -> None:
    store = buffer()
    log = ReplayLog(tmp_path, store)
    fill(store, 6, np.random.default_rng(0))
    parts = log.append(6)
    path = tmp_path / parts[0]["name"]
    data = bytearray(path.read_bytes())
    if damage == "edit":
        data[-1] ^= 1
        path.write_bytes(data)
    elif damage == "truncate":
        path.write_bytes(data[:-8])
    else:
        path.unlink()
    other = buffer()
    empty = content(other)
    with pytest.raises(CheckpointError, match="is missing" if damage == "remove" else "truncated or edited") as refusal:
        ReplayLog(tmp_path, other).restore(parts, 6)
    assert path.name in str(refusal.value)
    assert "\n" not in str(refusal.value)
    check(other, empty)
    assert other.pos == 0


def test_a_count_that_does_not_fit_the_buffer_is_refused(tmp_path: Path) -> None:
    store = buffer()
    fill(store, 6, np.random.default_rng(0))
    with pytest.raises(CheckpointError, match="the buffer is at 6, which 5 transitions cannot give"):
        ReplayLog(tmp_path, store).append(5)


def test_other_buffers_are_refused(tmp_path: Path) -> None:
    n_step = NStepReplayBuffer(10, OBS, ACTION, "cpu")
    dicts = DictReplayBuffer(10, spaces.Dict({"a": OBS}), ACTION, "cpu")
    for other in (n_step, dicts):
        with pytest.raises(CheckpointError, match=f"cannot store a {type(other).__name__} exactly"):
            ReplayLog(tmp_path, other)


class Noise:
    """Two of three features, in an order that changes."""

    def __init__(self) -> None:
        self.origins = np.array([0, -1, -2])

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        return rng.normal(size=(count, 2))


def adaptive(noise: Noise) -> AdaptiveReplayBuffer:
    """With every option on: 40 % are forgotten whenever it is asked, the third batch is the first of two steps."""
    capacity = DynamicCapacity(threshold=0.0, minimum=0, fraction=0.4)
    options: dict[str, Any] = {"n_steps": 2, "n_steps_delay": 3, "capacity": capacity, "redraw_seed": 5}
    store = AdaptiveReplayBuffer(10, OBS, ACTION, "cpu", **options)
    store.redraw_from(lambda: noise.origins, noise.draw)
    return store


def forget(store: AdaptiveReplayBuffer) -> None:
    store.forget_stale(lambda observations: np.zeros((len(observations), 2)))


@pytest.mark.parametrize("count", [6, 10, 17, 28])
def test_a_restored_buffer_with_options_draws_on_like_the_first(count: int, tmp_path: Path) -> None:
    noise = Noise()
    store = adaptive(noise)
    log = ReplayLog(tmp_path, store)
    rng = np.random.default_rng(count)
    fill(store, count - 5, rng)
    log.append(count - 5)
    noise.origins = np.array([-2, 0, -1])
    fill(store, 5, rng)
    forget(store)
    sample(store, 4, None, 0.9)
    checkpoint.save(tmp_path / "saved", {"parts": log.append(count), "buffer": log.buffer_state()})
    saved = checkpoint.load(tmp_path / "saved")

    other = adaptive(noise)
    restored = ReplayLog(tmp_path, other)
    restored.restore(saved["parts"], count, saved["buffer"])
    assert (other.size(), other.pos, other.full) == (store.size(), store.pos, store.full)
    for stop in (count, count + 4):  # then both go on
        drawn: list[list[Any]] = []
        for one in (store, other):
            np.random.seed(count)
            batches = [sample(one, 16, None, 0.9) for _ in range(5)]
            drawn.append([array for batch in batches for array in vars(batch).values()])
        assert all(np.array_equal(a, b) for a, b in zip(*drawn, strict=True))
        for one in (store, other):
            fill(one, 4, np.random.default_rng(stop))
            forget(one)
        assert store.forgotten == other.forgotten > 0
        assert restored.append(stop + 4) == log.append(stop + 4)


def test_forgotten_transitions_are_not_kept(tmp_path: Path) -> None:
    store = adaptive(Noise())
    log, rng = ReplayLog(tmp_path, store), np.random.default_rng(0)
    for stop in (3, 6, 9):
        fill(store, 3, rng)
        parts = log.append(stop)
    assert [part["start"] for part in parts] == [0, 3, 6]
    forget(store)  # 0, 1 and 2
    assert [part["start"] for part in log.append(9)] == [3, 6]
    late = ReplayLog(tmp_path, store).append(9)
    assert [(part["start"], part["stop"]) for part in late] == [(3, 9)]


def test_the_plain_buffer_has_no_other_state_and_takes_none(tmp_path: Path) -> None:
    plain, own = ReplayLog(tmp_path, buffer()), ReplayLog(tmp_path, adaptive(Noise()))
    assert plain.buffer_state() is None
    for log, state in ((plain, own.buffer_state()), (own, None)):
        with pytest.raises(CheckpointError, match="replay buffer has other options than this one"):
            log.restore([], 0, state)
