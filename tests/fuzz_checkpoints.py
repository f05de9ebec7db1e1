"""Damages checkpoints in many ways, and says what loading them does: `python tests/fuzz_checkpoints.py --cases 2000`.

Each case takes a run that was cut off, changes one thing in its folder, and takes its newest checkpoint as `--resume`
and `eval --checkpoint last` do. What must not happen: an exception that is no one-line refusal, a refusal that changed
the folder, or a folder whose step is not the one in its name and is taken all the same.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import io
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests")]

import gymnasium as gym  # noqa: E402
from support.cut_runs import KINDS, cut_off  # noqa: E402
from support.envs import FunctionEnv  # noqa: E402
from support.killed import Killed  # noqa: E402

from sparserl import config as yaml_config  # noqa: E402
from sparserl.errors import RunFailed, SparserlError  # noqa: E402
from sparserl.experiment import resuming  # noqa: E402
from sparserl.experiment.opened_agent_run import open_trained  # noqa: E402
from sparserl.experiment.runs import go_on  # noqa: E402
from sparserl.recording import checkpoint  # noqa: E402
from sparserl.recording.run_folder import RunFolder, full_checkpoints  # noqa: E402

Mutation = Callable[[random.Random, Path], str]
VALUES: list[Any] = [
    *(None, True, 0, 1, -1, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, "", "x", "\u0661", "../../x", [], {}, [[]]),
    *({"__tensor__": "no such"}, {"__tensor__": 5}, {"__float__": "nan"}, {"__float__": "x"}, {"__float__": []}),
]
"""What takes the place of a value in a state."""


def any_file(rng: random.Random, run: Path) -> Path:
    files = [path for path in newest(run).iterdir() if path.is_file()]
    files += [path for path in (run / "replay").glob("*") if path.is_file()]
    return rng.choice(sorted(files))


def newest(run: Path) -> Path:
    return full_checkpoints(RunFolder(run))[-1]


# Bytes.


def flip(rng: random.Random, run: Path) -> str:
    path = any_file(rng, run)
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 3, 20])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    rewrite(path, bytes(data))
    return f"bits of {path.name}"


def cut(rng: random.Random, run: Path) -> str:
    path = any_file(rng, run)
    data = path.read_bytes()
    rewrite(path, data[: rng.randrange(len(data))])
    return f"end of {path.name}"


def fill(rng: random.Random, run: Path) -> str:
    path = any_file(rng, run)
    rewrite(path, rng.choice([b"", b"\0" * 1000, b"[" * 100_000, b"{}", b"null", b'"x"', b"\xff" * 50, b"1" * 5000]))
    return f"all of {path.name}"


# Places.


def odd_thing(rng: random.Random, run: Path) -> str:
    """A file becomes a pipe, a device, a link, a folder or nothing."""
    path = any_file(rng, run)
    path.unlink()
    kind = rng.choice(["pipe", "device", "link", "loop", "folder", "nothing"])
    {
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "link": lambda: path.symlink_to(run / "config.yaml"),
        "loop": lambda: path.symlink_to(path),
        "folder": path.mkdir,
        "nothing": lambda: None,
    }[kind]()
    return f"{path.name} is a {kind}"


def stray(rng: random.Random, run: Path) -> str:
    names = [
        "step-",
        "step-1",
        "step-x",
        "step-000000999",
        "step-999999999999",
        "step-000000999.tmp",
        "x.old",
        "x.gone",
    ]
    name = rng.choice(names)
    path = run / "checkpoints" / name
    kind = rng.choice(["file", "folder", "link", "pipe"])
    {
        "file": path.touch,
        "folder": path.mkdir,
        "link": lambda: path.symlink_to("/"),
        "pipe": lambda: os.mkfifo(path),
    }[kind]()
    return f"stray {kind}"


def another_in_its_place(rng: random.Random, run: Path) -> str:
    path = newest(run)
    others = sorted(one for one in path.parent.iterdir() if one != path)
    other = rng.choice(others)
    shutil.rmtree(path)
    shutil.copytree(other, path)
    return "another checkpoint in its place"


def another_name(rng: random.Random, run: Path) -> str:
    path = rng.choice(full_checkpoints(RunFolder(run)))
    path.rename(path.with_name(f"step-{rng.randrange(100, 10 ** rng.randrange(3, 12)):09d}"))
    return "another name"


# Values, with checksums that agree.


def edited_state(rng: random.Random, run: Path) -> str:
    path = newest(run) / "state.json"
    tree = json.loads(path.read_text())
    for _ in range(rng.choice([1, 1, 1, 3])):
        edit(rng, tree)
    rewrite(path, json.dumps(tree).encode())
    renew(path.parent)
    return "value in state.json"


def deep(rng: random.Random, run: Path) -> str:
    path = newest(run) / rng.choice(["state.json", "manifest.json"])
    levels = rng.choice([100, 500, 990, 3000, 100_000])
    inner = rng.choice(["[]", "{}"])
    text = ("[" * levels + "]" * levels) if inner == "[]" else ('{"a":' * levels + "1" + "}" * levels)
    rewrite(path, text.encode())
    renew(path.parent)
    return f"deep {path.name}"


def edited_tensor(rng: random.Random, run: Path) -> str:
    import torch
    from safetensors.torch import load_file, save_file

    path = newest(run) / "tensors.safetensors"
    tensors = dict(load_file(path))
    name = rng.choice(sorted(tensors))
    old = tensors[name]
    flat = old.reshape(-1)
    kind = rng.choice(["gone", "empty", "longer", "shorter", "another type", "another shape", "a value", "swapped"])
    if kind == "gone":
        del tensors[name]
    elif kind == "swapped":
        other = rng.choice(sorted(tensors))
        tensors[name], tensors[other] = tensors[other].clone(), old.clone()
    else:
        changed = {
            "empty": lambda: flat[:0],
            "longer": lambda: torch.cat([flat, flat[:1]]),
            "shorter": lambda: flat[:-1],
            "another type": lambda: old.to(rng.choice([torch.float64, torch.float16, torch.int64, torch.bool])),
            "another shape": lambda: flat.reshape(1, -1),
            "a value": lambda: with_value(rng, old),
        }[kind]()
        tensors[name] = changed.clone().contiguous()
    path.unlink()
    save_file(tensors, path)
    renew(path.parent)
    return f"array: {kind}"


def with_value(rng: random.Random, old: Any) -> Any:
    changed = old.clone().reshape(-1)
    if changed.numel():
        place = rng.randrange(changed.numel())
        number = rng.choice([1e30, -1.0, 0.0] if changed.is_floating_point() else [-1, 2**31 - 1, 10**6, 0])
        with contextlib.suppress(RuntimeError, OverflowError):
            changed[place] = number
    return changed.reshape(old.shape)


def edit(rng: random.Random, tree: Any) -> None:
    """Replaces, removes or renames something anywhere in a tree, not only in its long lists."""
    node = tree
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            if isinstance(node, dict):
                node["new"] = rng.choice(VALUES)
            else:
                node.append(rng.choice(VALUES))
            return
        key = rng.choice(keys)
        below = node[key]
        if isinstance(below, dict | list) and rng.random() < 0.85:
            node = below
            continue
        how = rng.random()
        if how < 0.65:
            node[key] = copy.deepcopy(rng.choice(VALUES))
        elif how < 0.8:
            del node[key]
        elif isinstance(node, dict):
            node[f"{key}x"] = node.pop(key)
        else:
            node.append(copy.deepcopy(below))
        return


def renew(path: Path) -> None:
    """Makes the manifest agree with the files."""
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["files"] = {name: checkpoint.sha256(path / name) for name in ("state.json", "tensors.safetensors")}
        rewrite(path / "manifest.json", json.dumps(manifest).encode())


def rewrite(path: Path, data: bytes) -> None:
    """In a new file, since the old one is a link that other cases share."""
    path.unlink()
    path.write_bytes(data)


MUTATIONS: dict[Mutation, int] = {
    **{flip: 6, cut: 3, fill: 3, odd_thing: 4, stray: 3, another_in_its_place: 2, another_name: 2},
    **{edited_state: 30, deep: 2, edited_tensor: 15},
}
"""How to damage a checkpoint, and how often relative to the others."""


# What happens then.


def outcome(kind: str, run: Path) -> str:
    """What `--resume` does up to the first step: `taken`, `refused`, or what went wrong."""
    before = fingerprint_of(run)
    said = ""
    with contextlib.redirect_stdout(io.StringIO()), patch.object(resuming, "set_aside", side_effect=Killed):
        try:
            go_on(run)
        except Killed:
            return "taken"
        except RunFailed as error:
            return f"failed: {error}"
        except SparserlError as error:
            said = str(error)
        except (Exception, SystemExit) as error:
            return f"{type(error).__name__}: {error}"[:200]
    if "\n" in said or not 0 < len(said) < 2000:
        return f"not one line: {said[-200:]}"
    if fingerprint_of(run) != before:
        return "refused, but the folder has changed"
    return "refused"


def outcome_of_policy(kind: str, run: Path) -> str:
    """Likewise of the last policy."""
    if kind == "classifier":
        return "refused"
    shutil.rmtree(run / "checkpoints" / "final", ignore_errors=True)
    try:
        open_trained(run, "last")
    except SparserlError as error:
        return "refused" if "\n" not in str(error) else "not one line"
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"[:200]
    return "taken"


def fingerprint_of(run: Path) -> dict[str, str]:
    """Names of all, and content of what is no device or pipe."""
    names = {str(path.relative_to(run)): "" for path in run.rglob("*")}
    plain = {}
    for name in names:
        path = run / name
        if path.is_file() and not path.is_symlink():
            plain[name] = checkpoint.sha256(path)
    return names | plain


@contextlib.contextmanager
def tiny_env() -> Iterator[None]:
    """While `Tiny-v0` is registered."""
    gym.register("Tiny-v0", entry_point=lambda: FunctionEnv(horizon=17))
    try:
        yield
    finally:
        gym.registry.pop("Tiny-v0")


def linked_copy(source: Path, target: Path) -> Path:
    """A copy of a run in which all but the logs are links to the same data; a mutation writes new files."""

    def copy_one(path: str, to: str) -> None:
        (shutil.copy if path.endswith(".csv") else os.link)(path, to)

    return Path(shutil.copytree(source, target, copy_function=copy_one))


def fuzz(folder: Path, runs: dict[str, Path], cases: int, seed: int) -> tuple[collections.Counter[str], list[str]]:
    """Damages copies of runs.

    Returns:
        How often each mutation was taken or refused, and what went wrong in words.
    """
    counts: collections.Counter[str] = collections.Counter()
    wrong = []
    # No case changes a config, and reading one takes longer than a checkpoint.
    configs = {kind: yaml_config.load_yaml(run / "config.yaml") for kind, run in runs.items()}
    known = patch.object(yaml_config, "load_yaml", lambda path: configs[path.parent.name.partition(",")[0]])
    for case in range(cases):
        rng = random.Random(f"{seed} {case}")
        kind = rng.choice(sorted(runs))
        run = linked_copy(runs[kind], folder / f"{kind},{case}")
        mutate = rng.choices(list(MUTATIONS), list(MUTATIONS.values()))[0]
        what = mutate(rng, run)
        ways = {"resume": outcome, "last policy": outcome_of_policy}
        for name in ways if case % 4 == 0 else ["resume"]:
            with known:
                found = ways[name](kind, run)
            if found == "taken" and name == "resume":
                found = taken_wrongly(run) or found
            counts[f"{mutate.__name__}: {found if found in ('taken', 'refused') else 'wrong'}"] += 1
            if found not in ("taken", "refused"):
                wrong.append(f"case {case} ({kind}, {what}, {name}): {' '.join(found.split())}")
        shutil.rmtree(run)
    return counts, wrong


def taken_wrongly(run: Path) -> str:
    """What is wrong with a checkpoint that was taken, if its step is not that of its name."""
    path = newest(run)
    step = checkpoint.load(path)["global_step"]
    return "" if path.name == f"step-{step:09d}" else f"{path.name} is of step {step}"


def main() -> int:
    """Runs a campaign and prints its counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, tiny_env():
        folder = Path(name)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            runs = {kind: cut_off(kind, folder / kind / "run") for kind in KINDS}
        counts, wrong = fuzz(folder, runs, arguments.cases, arguments.seed)
    for line in wrong:
        print(line)
    for line, count in sorted(counts.items()):
        print(f"{count:6}  {line}")
    print(f"{arguments.cases} cases, {len(wrong)} of them wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
