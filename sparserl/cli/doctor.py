"""`sparserl doctor`: what this installation and machine have, and what to do about what is missing.

Nothing here fails: what cannot be found out is said in its place.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparserl.cli.arguments import parse
from sparserl.errors import one_line
from sparserl.extras import extras, how_to_install
from sparserl.json_text import json_text
from sparserl.machine_memory import free_memory_bytes, in_words, memory_bytes

Facts = dict[str, Any]
GL_BACKENDS = ("egl", "osmesa", "glfw")
"""What MuJoCo renders with, by the value of MUJOCO_GL."""
RENDER = "import mujoco; mujoco.Renderer(mujoco.MjModel.from_xml_string('<mujoco/>'), 8, 8).render()"
RENDER_SECONDS = 30
VECTORS = ("avx512f", "avx2", "avx", "fma", "neon", "sve")
"""Features of a CPU that matter to kernels."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
FOR_DEVELOPERS = ("dev", "docs")
"""Extras that nobody misses."""


@dataclass(frozen=True)
class DoctorCommand:
    """What this installation and machine have: to be pasted into a report of a bug."""

    json: bool = False
    """Print one line of JSON instead."""


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl doctor`; returns the exit status, which is 0."""
    command = parse(DoctorCommand, arguments, command="doctor")
    found: dict[str, Facts] = {}
    for name, (look, say) in SECTIONS.items():
        try:
            found[name] = look()
            lines = say(found[name])
        except Exception as error:  # a broken installation is what this is for
            found[name] = {"failed": one_line(f"{type(error).__name__}: {error}")}
            lines = [f"could not be found out ({found[name]['failed']})"]
        if not command.json:
            width = min(120, shutil.get_terminal_size().columns) - 12
            wrapped = [part for line in lines for part in textwrap.wrap(line, width, subsequent_indent="  ")]
            print("\n".join(f"{name if not row else '':<11} {line}" for row, line in enumerate(wrapped)), flush=True)
    if command.json:
        print(json_text(found))
    return 0


def _program() -> Facts:
    from sparserl.recording.run_folder import versions

    return {**versions(threads=0), "location": str(Path(__file__).parents[1]), "executable": sys.executable}


def _say_program(facts: Facts) -> list[str]:
    commit = facts["commit"]
    of = "no checkout" if commit is None else f"commit {commit[:9]}{', with changes' if facts['dirty'] else ''}"
    names = ("torch", "numpy", "numba", "gymnasium", "mujoco", "stable_baselines3", "scikit_learn", "wandb")
    return [
        f"{facts['sparserl']} in {facts['location']} ({of})",
        f"Python {facts['python']} ({facts['executable']}) on {facts['platform']}",
        ", ".join(f"{name.replace('_', '-')} {facts[name] or 'missing'}" for name in names),
    ]


def _cpu() -> Facts:
    import llvmlite.binding as llvm

    from sparserl.recording.run_folder import cpu_model

    features = llvm.get_host_cpu_features()
    return {
        "model": cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "vectors": [name for name in VECTORS if features.get(name)],
        "threads": {name: os.environ[name] for name in THREADS if name in os.environ},
    }


def _say_cpu(facts: Facts) -> list[str]:
    said = [f"{name}={value}" for name, value in facts["threads"].items()]
    vectors = " ".join(facts["vectors"]) or "no vectors that kernels know"
    threads = f"; {', '.join(said)}" if said else ""
    return [f"{facts['model']}, {facts['usable_cores']} of {facts['cores']} cores, {vectors}{threads}"]


def _room() -> Facts:
    return {
        "memory_free_bytes": free_memory_bytes(),
        "memory_bytes": memory_bytes(),
        "disk_free_bytes": {str(path): shutil.disk_usage(path).free for path in (Path.cwd(), Path.home())},
    }


def _say_room(facts: Facts) -> list[str]:
    free, has = (facts[name] for name in ("memory_free_bytes", "memory_bytes"))
    memory = f"memory: {'?' if free is None else in_words(free)} free of {'?' if has is None else in_words(has)}"
    disks = [f"{in_words(free)} free in {path}" for path, free in facts["disk_free_bytes"].items()]
    return [f"{memory}; disk: {', '.join(disks)}"]


def _kernels() -> Facts:
    from sparserl import kernels
    from sparserl.kernels.compiled import cache_folder, stored_kernels

    folder = Path(kernels.__file__).parent
    where = cache_folder(folder)
    return {"stored": stored_kernels(folder), "folder": None if where is None else str(where)}


def _say_kernels(facts: Facts) -> list[str]:
    if facts["folder"] is None:
        return ["compiled by every process anew, 10 to 20 s: no folder for them can be written; set NUMBA_CACHE_DIR"]
    if not facts["stored"]:
        return [f"not compiled yet: the first run does that, once, in 10 to 20 s; they will be in {facts['folder']}"]
    return [f"{facts['stored']} compiled, in {facts['folder']}"]


def _rendering() -> Facts:
    """What each backend of MuJoCo answers, each in a process of its own: a wrong one may end it."""
    started = {
        name: subprocess.Popen(
            [sys.executable, "-c", RENDER],
            env={**os.environ, "MUJOCO_GL": name},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        for name in GL_BACKENDS
    }
    answers = {name: _answer(process) for name, process in started.items()}
    return {"backends": answers, "MUJOCO_GL": os.environ.get("MUJOCO_GL"), "DISPLAY": os.environ.get("DISPLAY")}


def _answer(process: subprocess.Popen[str]) -> str:
    try:
        _, said = process.communicate(timeout=RENDER_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"no answer in {RENDER_SECONDS} s"
    if process.returncode == 0:
        return "works"
    first, _, _ = said.partition("Exception ignored")  # what follows happens while it ends
    lines = [line for line in first.splitlines() if line.strip() and not line.startswith(" ")]
    return one_line(lines[-1] if lines else f"ends with status {process.returncode}", 100)


def _say_rendering(facts: Facts) -> list[str]:
    works = [name for name, answer in facts["backends"].items() if answer == "works"]
    chosen = facts["MUJOCO_GL"]
    # Where one works, why others do not is of interest only for the one that is asked for; --json has all.
    told = {name: answer for name, answer in facts["backends"].items() if not works or name == chosen}
    fails = [f"{name}: {answer}" for name, answer in told.items() if answer != "works"]
    said = f"MUJOCO_GL={chosen}" if chosen else "MUJOCO_GL is not set"
    display = f"DISPLAY={facts['DISPLAY']}" if facts["DISPLAY"] else "no DISPLAY, so no windows"
    return [f"{', '.join(works) or 'none'} {'work' if len(works) != 1 else 'works'} ({said}, {display})", *fails]


def _extras() -> Facts:
    there = {name: is_there for name, is_there in extras().items() if name not in FOR_DEVELOPERS}
    missing = [name for name, is_there in there.items() if not is_there]
    return {"there": [name for name in there if name not in missing], "missing": missing}


def _say_extras(facts: Facts) -> list[str]:
    if not (facts["there"] or facts["missing"]):
        return ["unknown: sparserl is run from a folder, without being installed"]
    lines = [f"there: {', '.join(facts['there']) or 'none'}"]
    if facts["missing"]:
        lines.append(f"missing: {', '.join(facts['missing'])}; {how_to_install(*facts['missing'])}")
    return lines


def _data() -> Facts:
    from sparserl.continual.supervised.data import default_data_dir

    folder = default_data_dir()
    sets = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return {"folder": str(folder), "data_sets": sets}


def _say_data(facts: Facts) -> list[str]:
    return [f"in {facts['folder']}: {', '.join(facts['data_sets']) or 'none'}"]


SECTIONS: Mapping[str, tuple[Callable[[], Facts], Callable[[Facts], list[str]]]] = {
    "sparserl": (_program, _say_program),
    "CPU": (_cpu, _say_cpu),
    "room": (_room, _say_room),
    "kernels": (_kernels, _say_kernels),
    "rendering": (_rendering, _say_rendering),
    "extras": (_extras, _say_extras),
    "data": (_data, _say_data),
}
"""Heading -> what finds facts, and what says them in lines."""
