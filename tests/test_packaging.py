"""What a user installs is what the checkout holds: package list, links, and a wheel that was really used.

The wheel is built from the source distribution, without isolation and without an index, installed
into an environment of its own, and imported from a folder that is not the checkout.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINKED = ("agents", "configs", "continual", "envs")
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
# Our own environment must not lend the new one its view of the checkout.
CLEAN_ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def files_of_package() -> set[str]:
    """Paths of all files below sparserl/ that belong into a wheel, links followed, relative to the root."""
    found = set()
    for folder, subfolders, files in os.walk(ROOT / "sparserl", followlinks=True):
        subfolders[:] = [name for name in subfolders if name != "__pycache__"]
        for name in files:
            path = Path(folder, name).relative_to(ROOT).as_posix()
            is_preset = path.startswith("sparserl/configs/") and name.endswith(".yaml")
            if name.endswith((".py", ".html")) or is_preset or path == "sparserl/py.typed":
                found.add(path)
    return found


@pytest.mark.parametrize("name", LINKED)
def test_link_is_relative_and_points_to_the_folder(name: str) -> None:
    link = ROOT / "sparserl" / name
    assert link.is_symlink(), f"{link.relative_to(ROOT)} must be a symbolic link"
    assert os.readlink(link) == f"../{name}"
    assert (ROOT / name).is_dir()
    assert not (ROOT / name).is_symlink()


def test_packages_are_listed() -> None:
    with_modules = {Path(path).parent for path in files_of_package() if path.endswith(".py")}
    on_disk = {".".join(folder.parts) for folder in with_modules}
    listed = SETUPTOOLS["packages"]
    assert len(listed) == len(set(listed))
    assert set(listed) == on_disk, "`packages` in pyproject.toml and the folders with modules differ"
    without_init = [str(f) for f in sorted(with_modules) if not (ROOT / f / "__init__.py").exists()]
    assert not without_init, f"no __init__.py in {without_init}"


def test_mapping_covers_the_links() -> None:
    expected = {"": ".", "sparserl": "sparserl", **{f"sparserl.{name}": name for name in LINKED}}
    assert SETUPTOOLS["package-dir"] == expected


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=CLEAN_ENVIRON,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{command[:6]} failed:\n{done.stdout[-4000:]}"
    return done.stdout


USE = """
import importlib, importlib.resources, json, pathlib, sys
modules = {name: importlib.import_module(name).__file__ for name in json.loads(sys.argv[1])}
configs = importlib.resources.files("sparserl.configs")
found = [p.relative_to(str(configs)).as_posix() for p in pathlib.Path(str(configs)).rglob("*.yaml")]
print("\\n" + json.dumps({"modules": modules, "configs": found}))
"""


@pytest.mark.slow
def test_wheel_works_outside_the_checkout(tmp_path: Path) -> None:
    # A copy, so that building writes nothing into the checkout; hidden folders and products stay behind.
    source = tmp_path / "source"
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "wandb", "venv")
    shutil.copytree(ROOT, source, symlinks=True, ignore=unwanted)

    # 1. source distribution, then the wheel from it and from nothing else
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist")
    run(*build, "--sdist", source, cwd=tmp_path)
    (sdist,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    run(*build, "--wheel", unpacked, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = [name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")]
    assert len(packed) == len(set(packed))
    assert set(packed) == files_of_package()

    # 2. an environment that owns nothing but the wheel, and after that sees our dependencies
    environment = tmp_path / "environment"
    venv.create(environment)
    python = environment / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)  # ours: one of its own takes longer than all else
    run(*pip, "install", "--no-deps", "--no-index", "--quiet", wheel, cwd=tmp_path)
    (site_packages,) = (environment / "lib").glob("python*/site-packages")
    # A folder named in a .pth file is searched; the .pth files in it (our editable install) are not read.
    ours = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site_packages / "dependencies.pth").write_text("\n".join(ours) + "\n", encoding="utf-8")

    # 3. use it
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    answer = json.loads(run(python, "-c", USE, json.dumps(SETUPTOOLS["packages"]), cwd=elsewhere).splitlines()[-1])
    for module, file in answer["modules"].items():
        assert Path(file).is_relative_to(site_packages), f"{module} was imported from {file}"
    presets = {path.removeprefix("sparserl/configs/") for path in files_of_package() if path.endswith(".yaml")}
    assert presets
    assert set(answer["configs"]) == presets
    assert "train" in run(environment / "bin" / "sparserl", "--help", cwd=elsewhere)
