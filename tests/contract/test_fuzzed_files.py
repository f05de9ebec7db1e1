"""Files of every kind that users write, damaged in 1,000 ways: each is read, or refused in one short line, soon."""

from __future__ import annotations

import faulthandler
import gzip
import json
import random
import re
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparserl.cli.running import read
from sparserl.continual.supervised.idx import read_idx
from sparserl.envs import load_rl_sequence
from sparserl.envs.wrappers.feature_histograms import FeatureHistograms
from sparserl.envs.wrappers.normalized_observations import ObservationStatistics
from sparserl.errors import LONGEST_MESSAGE, SparserlError
from sparserl.sweep.file import load_jobs
from sparserl.sweep.tune_file import load_tune_file

HANGS_AFTER_S = 120
"""For all cases of a kind: a watchdog that ends the process, no measurement."""

TRAIN = b"""algo: ds_td3
env: HalfCheetah-v5
seed: 3
total_steps: 3e4
agent: {learning_rate: 1e-3, net_arch: [256, 256], buffer_size: 100_000}
topology:
  method: rigl
  density: [0.2, 0.4]
  drop_fraction: 0.2
  decay: cosine
wrappers: {noise_fraction: 0.5, noise_std: 2.0, permute: yes}
eval: {every_steps: 5000, episodes: 3}
wandb: {tags: [a, b], mode: offline}
"""
CONTINUAL = b"""sequence: split_digits
method: ewc
tasks: 5
ewc: {strength: 600.0, fisher_samples: 100, fisher_labels: sampled}
learner:
  hidden: [40, 40]
  optimizer: sgd
  momentum: 0.9
  learning_rate: 1e-3
log_every_steps: 50
"""
RL_CONTINUAL = b"""sequence: halfcheetah_forgetting
algo: ds_sac
method: packnet
steps_per_task: 20000
packnet: {retrain_updates: 1000}
agent: {ent_coef: auto, gamma: 0.99, net_arch: [64, 64]}
border: {buffer: emptied, heads: task}
eval: {every_steps: 5000, episodes: 2, deterministic_episodes: 1}
topology: {density: 0.5, update_interval: 1000}
"""
SEQUENCE = b"""name: mine
tasks:
  - {name: light, env: Hopper-v5, steps: 500, modification: {gravity: 0.5, friction: 2}}
  - env: Hopper-v5
    steps: 1e3
    episode_steps: 200
    modification:
      parts: [{part: torso, mass: 2.0}, {part: foot, radius: 1.5}]
      disabled_actuators: [0, 2]
"""
SWEEP = b"""command: train
base: &base {algo: ds_td3, total_steps: 30000, env: Hopper-v5}
grid:
  topology.density: [1.0, 0.1]
  agent.net_arch: [[8, 8]]
seeds: [1, 2]
"""
TUNE = b"""command: train
base: {algo: ds_td3, env: Hopper-v5, total_steps: 30000}
space:
  topology.density: {low: 0.05, high: 1.0, log: true}
  topology.method: [set, rigl]
objective: return_last10
direction: maximize
seeds: 2
"""
HISTOGRAMS = json.dumps({"edges": [[0.0, 1.0, 2.0], [1, 2, 3]], "probabilities": [[0.5, 0.5], [0.25, 0.75]]}).encode()
STATISTICS = json.dumps({"mean": [0.0, 1.5], "var": [1.0, 2e-3], "count": 10.0}).encode()
IDX = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]) + bytes(range(24))


def _continual(path: Path) -> object:
    words = ["--config", str(path)]
    return read("continual", words)


KINDS: dict[str, tuple[bytes, Callable[[Path], object], int]] = {
    "train.yaml": (TRAIN, lambda path: read("train", ["--config", str(path)]), 175),
    "continual.yaml": (CONTINUAL, _continual, 125),
    "rl_continual.yaml": (RL_CONTINUAL, _continual, 125),
    "sequence.yaml": (SEQUENCE, load_rl_sequence, 125),
    "sweep.yaml": (SWEEP, load_jobs, 100),
    "tune.yaml": (TUNE, load_tune_file, 100),
    "histograms.json": (HISTOGRAMS, FeatureHistograms.load, 75),
    "normalization.json": (STATISTICS, ObservationStatistics.load, 75),
    "idx": (IDX, lambda path: read_idx(path, 3), 50),
    "idx.gz": (gzip.compress(IDX, mtime=0), lambda path: read_idx(path, 3), 50),
}
"""Name of a file -> what is right in it, what reads it, and in how many ways it is damaged."""

NASTY = (
    *("1e999", "-1e999", ".nan", ".inf", "-1", "0", "1e30", "9" * 50, "9" * 5000, "1_0", "0x1F", "1:30", "!!int x"),
    *("null", "~", "yes", "''", "' '", "[]", "{}", "[[]]", "[{}]", "a: b", "2024-01-01", "=", "<<", "*a", "&a [*a]"),
    *("!!python/object:os.system {}", "!!binary aGk=", "!!set {a}", r'"\uD800"', r'"\0"', '"\\x1b[31m"', "\u2028"),
    *(
        "é" * 3000,
        "x" * 100_000,
        "[" * 3000,
        "{a: " * 3000,
        "- " * 3000,
        "a" * 300 + ": 1",
        "\t",
        "---",
        "...",
        "%YAML 9",
    ),
    *("|", ">", "@", "`", "#", "!", "NaN", "Infinity", "1e400", "-0.0", "True", "../../etc/passwd", "/dev/zero", "."),
    *("[" + "1, " * 30_000 + "1]", "ds_td3", "HalfCheetah-v5", "{low: 0, high: 1e30}", "[0.5, .nan]", "extends: x"),
)


def _bytes(raw: bytes, rng: random.Random) -> bytes:
    """A few bytes flipped, taken out or put in."""
    damaged = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 6))):
        place = rng.randrange(len(damaged) + 1)
        kind = rng.randrange(3)
        if kind == 0:
            damaged[place:place] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 3)))
        elif kind == 1:
            del damaged[place : place + rng.randint(1, 5)]
        elif place < len(damaged):
            damaged[place] = rng.choice(string.printable.encode())
    return bytes(damaged)


def _words(raw: bytes, rng: random.Random) -> bytes:
    """Words replaced by nasty ones, or by each other."""
    text = raw.decode("latin-1")
    words = sorted(set(re.split(r"[\s,:{}\[\]]+", text)) - {""}) or [text]
    for _ in range(rng.choice((1, 1, 1, 2))):
        new = rng.choice(NASTY) if rng.random() < 0.7 else rng.choice(words)
        text = text.replace(rng.choice(words), new, rng.choice((1, 1, -1)))
    return text.encode(errors="surrogatepass")


def _lines(raw: bytes, rng: random.Random) -> bytes:
    """Lines twice, gone, moved, indented, or a part of the file again and again."""
    lines = raw.split(b"\n")
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.randrange(len(lines))
        kind = rng.randrange(5)
        if kind == 0:
            lines.insert(rng.randrange(len(lines) + 1), lines[place])
        elif kind == 1 and len(lines) > 1:
            del lines[place]
        elif kind == 2:
            rng.shuffle(lines)
        elif kind == 3:
            lines[place] = b" " * rng.randint(1, 60) + lines[place]
        else:
            lines[place:place] = lines[place : place + 2] * rng.choice((5, 100, 1000))
    return b"\n".join(lines)[:1_000_000]


def _cut(raw: bytes, rng: random.Random) -> bytes:
    """A piece of it."""
    start, end = sorted(rng.randrange(len(raw) + 1) for _ in range(2))
    return raw[start:end] if rng.random() < 0.5 else raw[:end]


DAMAGE = (_bytes, _words, _words, _lines, _cut)


@pytest.fixture(autouse=True)
def watchdog() -> Iterator[None]:
    faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def outcome(read: Callable[[Path], Any], path: Path, what: str) -> str:
    """How a file is taken: `""`, or the message that refuses it."""
    try:
        read(path)
    except SparserlError as refusal:
        message = str(refusal)
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    else:
        return ""
    if len(message) > LONGEST_MESSAGE or not message.isprintable() or not message:
        raise AssertionError(f"{what}: {message!r}")
    return message


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    right, read, cases = KINDS[kind]
    path = tmp_path / kind
    path.write_bytes(right)
    assert outcome(read, path, "as it is") == ""
    rng = random.Random(f"{kind} 16")
    taken, refused = 0, set()
    for case in range(cases):
        path.write_bytes(rng.choice(DAMAGE)(right, rng))
        message = outcome(read, path, f"case {case}")
        taken += not message
        if message:
            refused.add(message)
    print(f"{kind}: of {cases} cases {taken} are read, {cases - taken} are refused by {len(refused)} messages")
    assert 0 < taken < cases


def test_there_are_enough_cases() -> None:
    assert sum(cases for _, _, cases in KINDS.values()) == 1000


def test_a_packed_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparserl.continual.supervised.idx.MOST_BYTES", 10_000)
    (tmp_path / "bomb").write_bytes(gzip.compress(bytes(10_001)))
    assert "is too large: unpacked" in outcome(lambda path: read_idx(path, 3), tmp_path / "bomb", "bomb")


def test_arrays_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for value in ("1", {"a": 1}, None, True, [1, [2]], 10**400):
        path.write_text(json.dumps({"mean": [0.0], "var": [1.0], "count": value}))
        assert outcome(ObservationStatistics.load, path, str(value)[:20])
    path.write_text(json.dumps({"mean": [0.1], "var": [1], "count": 3}))
    assert np.array_equal(ObservationStatistics.load(path).mean, [0.1])
