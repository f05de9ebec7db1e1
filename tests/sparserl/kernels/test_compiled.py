"""Machine code is as new as its sources, and kept where there is a place for it."""

from __future__ import annotations

import importlib
import logging
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numba
import pytest

from sparserl.kernels import compiled as module
from sparserl.kernels.compiled import cache_folder, source_stamp

LOWER = """
from sparserl.kernels.compiled import compiled

@compiled()
def number():
    return {number}
"""
UPPER = """
from sparserl.kernels.compiled import compiled
from lower_file import number

@compiled()
def twice():
    return 2 * number()
"""
UPPER_PARALLEL = """
import numba
from sparserl.kernels.compiled import compiled
from lower_file import number

@compiled(parallel=True)
def twice():
    total = 0
    for _ in numba.prange(2):
        total += number()
    return total
"""


def forget() -> None:
    for cached in (cache_folder, source_stamp):
        cached.cache_clear()


@pytest.fixture(autouse=True)
def no_memory() -> Iterator[None]:
    forget()
    yield
    forget()


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ModuleType]]:
    """Two files of kernels, of which one calls the other, imported as by a new process."""
    folder = tmp_path / "kernels"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def load(number: int, upper: str = UPPER) -> ModuleType:
        (folder / "lower_file.py").write_text(LOWER.format(number=number))
        (folder / "upper_file.py").write_text(upper)
        for name in ("lower_file", "upper_file"):
            sys.modules.pop(name, None)
            for stale in (folder / "__pycache__").glob(f"{name}*.pyc"):
                stale.unlink()  # Python's own, which goes by the second
        importlib.invalidate_caches()
        forget()
        return importlib.import_module("upper_file")

    yield load
    for name in ("lower_file", "upper_file"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("upper", [UPPER, UPPER_PARALLEL], ids=["serial", "parallel"])
def test_code_is_loaded_as_long_as_no_file_changes(upper: str, kernels: Callable[..., ModuleType]) -> None:
    assert kernels(3, upper).twice() == 6
    again = kernels(3, upper).twice
    assert again() == 6
    assert sum(again.stats.cache_hits.values()) == 1
    assert not again.stats.cache_misses


@pytest.mark.parametrize("upper", [UPPER, UPPER_PARALLEL], ids=["serial", "parallel"])
def test_code_is_made_anew_when_another_file_changes(upper: str, kernels: Callable[..., ModuleType]) -> None:
    assert kernels(3, upper).twice() == 6
    edited = kernels(4, upper).twice
    assert edited() == 8
    assert not edited.stats.cache_hits


def test_the_stamp_is_of_every_file(tmp_path: Path) -> None:
    stamps = set()
    for name, text in [("a.py", "1"), ("a.py", "2"), ("b.py", "2"), ("b.py", "21"), ("notes.txt", "1")]:
        (tmp_path / name).write_text(text)
        source_stamp.cache_clear()
        stamps.add(source_stamp(tmp_path))
    assert len(stamps) == 4  # the text is no source


def test_every_kernel_is_stored_for_one_state_of_all_sources() -> None:
    """`vector.py` holds no kernel, only what kernels elsewhere are made of."""
    folder = Path(module.__file__ or "").parent
    assert (folder / "vector.py").exists()
    for path in folder.glob("*.py"):
        for name, value in vars(importlib.import_module(f"sparserl.kernels.{path.stem}")).items():
            if isinstance(value, numba.core.dispatcher.Dispatcher):
                assert type(value._cache) is module._Cache, name
                assert Path(value.py_func.__code__.co_filename).parent == folder, name


def test_other_users_of_numba_keep_their_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "foreign_file.py").write_text("import numba\n\n@numba.njit(cache=True)\ndef one():\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    foreign = importlib.import_module("foreign_file")
    assert type(foreign.one._cache) is numba.core.caching.FunctionCache
    sys.modules.pop("foreign_file")


# --- places -------------------------------------------------------------------------------------------


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of sources that nobody can write beside, and a user without a home."""
    folder = tmp_path / "installed"
    folder.mkdir()
    (folder / "source.py").write_text("")
    (folder / "__pycache__").write_text("a file, in which not even root makes files")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "__pycache__"))
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return folder


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    return [record.getMessage() for record in caplog.records]


def test_beside_the_files_if_that_is_possible(nowhere: Path, caplog: pytest.LogCaptureFixture) -> None:
    (nowhere / "__pycache__").unlink()
    assert cache_folder(nowhere) == nowhere / "__pycache__"
    assert warnings(caplog) == []


def test_in_the_users_cache_if_the_installation_is_read_only(
    nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = cache_folder(nowhere)
    assert found is not None
    assert found.parent == tmp_path / "cache" / "numba"
    assert found.name.startswith("installed_")
    assert warnings(caplog) == []


def test_where_numba_is_told_to_keep_code(nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "told"))
    found = cache_folder(nowhere)
    assert found is not None
    assert found.parent == tmp_path / "told"


def test_without_a_home_in_a_temporary_folder_of_the_user_which_is_said_once(
    nowhere: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = cache_folder(nowhere)
    assert found is not None
    own = tmp_path / "temporary" / f"sparserl-{os.getuid()}"
    assert found.parent == own
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    (message,) = warnings(caplog)
    assert message.startswith(f"sparserl cannot write {nowhere / '__pycache__'} or ")
    assert message.endswith(f"compiled kernels are kept in {found}")
    assert "\n" not in message
    forget()
    assert cache_folder(nowhere) == found
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("of", ["others", "a link", "a file"])
def test_code_of_others_is_not_run(of: str, nowhere: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = tmp_path / "temporary" / f"sparserl-{os.getuid()}"
    if of == "others":
        own.mkdir()
        own.chmod(0o777)
    elif of == "a link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        own.symlink_to(tmp_path / "theirs")
    else:
        own.write_text("")
    assert cache_folder(nowhere) is None
    (message,) = warnings(caplog)
    assert message.endswith("each process compiles the kernels anew, which takes 10 to 20 s")


def test_a_user_whom_nobody_knows_has_no_folder_called_tilde(
    nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(module.os.path, "expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    found = cache_folder(nowhere)
    assert found is not None
    assert found.is_absolute()
    assert not (tmp_path / "~").exists()


def test_kernels_run_without_a_cache(nowhere: Path, kernels: Callable[..., ModuleType], tmp_path: Path) -> None:
    (tmp_path / "temporary" / f"sparserl-{os.getuid()}").write_text("")
    (tmp_path / "kernels" / "__pycache__").write_text("")
    twice = kernels(3).twice
    assert twice() == 6
    assert cache_folder(tmp_path / "kernels") is None
    assert not twice.stats.cache_hits
