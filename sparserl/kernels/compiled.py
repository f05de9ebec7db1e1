"""Compiles kernels, and keeps the machine code for the next process.

Numba looks at the file of a compiled function only, though its machine code holds what it calls in other files. Here
stored code is for one state of all files in the folder of the function, and for one version of Numba and llvmlite.
Other users of Numba in the same process are not touched.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
import pickle
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import caching
from numba.core.ccallback import CFunc
from numba.core.sigutils import normalize_signature as signature_of

LOG = logging.getLogger("sparserl")


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """As `numba.njit(cache=True, nogil=True, **options)`, with code that is never older than what it was made of."""

    def decorate(function: Callable[..., Any]) -> Any:
        return _stored(numba.njit(nogil=True, **options)(function), function)

    return decorate


def compiled_callback(function: Callable[..., Any], signature: Any, **options: Any) -> int:
    """Address of the code of a function with a signature of C, stored like that of `compiled`.

    It must not raise: the error would be lost.
    """
    callback = _stored(CFunc(function, signature_of(signature), {}, options), function)  # type: ignore[no-untyped-call]
    _CALLBACKS.append(callback)
    callback.compile()
    return int(callback.address)


_CALLBACKS: list[Any] = []  # their code is freed with them


def _stored(kernel: Any, function: Callable[..., Any]) -> Any:
    if cache_folder(Path(inspect.getfile(function)).parent) is not None:
        kernel._cache = _Cache(function)  # type: ignore[no-untyped-call]
    return kernel


@lru_cache
def source_stamp(folder: Path) -> str:
    """One word for the state of all files that kernels in this folder are made of."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    for path in sorted(folder.glob("*.py")):
        digest.update(f"{path.name} {path.stat().st_size} ".encode() + path.read_bytes())
    return digest.hexdigest()


@lru_cache
def cache_folder(folder: Path) -> Path | None:
    """Where machine code of kernels in `folder` is kept; None if nowhere.

    $NUMBA_CACHE_DIR, else beside the files, else in the user's cache. In a read-only installation of a user without a
    home, in a folder for temporary files, which is said in one line when it is made.
    """
    if not list(folder.glob("*.py")):
        return None  # in an archive: nothing says how old the code is
    usual = list(_usual(folder))
    for path in usual:
        if _writable(path):
            return path
    where = f"sparserl cannot write {' or '.join(map(str, usual))} (set NUMBA_CACHE_DIR)"
    try:
        of_user = Path(tempfile.gettempdir(), f"sparserl-{os.getuid()}")
    except OSError:
        of_user = None
    if of_user is not None:
        is_new = not of_user.exists()
        if _is_ours(of_user) and _writable(path := of_user / _name(folder)):
            if is_new:
                LOG.warning("%s: compiled kernels are kept in %s", where, path)
            return path
    LOG.warning("%s: each process compiles the kernels anew, which takes 10 to 20 s", where)
    return None


def stored_kernels(folder: Path) -> int:
    """How many kernels in `folder` have machine code that is of its present files."""
    where, count = cache_folder(folder), 0
    for path in where.glob("*.nbi") if where is not None else ():
        try:
            with path.open("rb") as file:  # as Numba reads it: the version, then the rest
                if pickle.load(file) == numba.__version__:
                    count += pickle.loads(file.read())[0] == source_stamp(folder)
        except (OSError, EOFError, pickle.UnpicklingError, IndexError, TypeError):
            continue
    return count


def _usual(folder: Path) -> Iterator[Path]:
    if numba.config.CACHE_DIR:  # type: ignore[attr-defined]  # set at run time
        yield Path(numba.config.CACHE_DIR, _name(folder))  # type: ignore[attr-defined]
        return
    yield folder / "__pycache__"
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if home.is_absolute():  # not so if there is no home folder
        yield home / "numba" / _name(folder)


def _name(folder: Path) -> str:
    return f"{folder.name}_{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}"


def _writable(path: Path) -> bool:
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError:
        return False
    return True


def _is_ours(path: Path) -> bool:
    """Whether this is a folder that no other user can write: what is loaded from it is run."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077


class _Locator(caching._CacheLocator):
    def __init__(self, function: Callable[..., Any]):
        self._py_file = inspect.getfile(function)
        self._line = function.__code__.co_firstlineno

    def get_cache_path(self) -> str:
        return str(cache_folder(Path(self._py_file).parent))

    def get_source_stamp(self) -> str:
        return source_stamp(Path(self._py_file).parent)

    def get_disambiguator(self) -> str:
        return str(self._line)


class _CacheImpl(caching.CompileResultCacheImpl):
    def __init__(self, function: Callable[..., Any]):
        # Not the inherited one: it looks for one of Numba's own locators.
        self._lineno = function.__code__.co_firstlineno
        self._locator = _Locator(function)
        name = f"{Path(inspect.getfile(function)).stem}.{function.__qualname__}"
        self._filename_base = self.get_filename_base(name, getattr(sys, "abiflags", ""))  # type: ignore[no-untyped-call]


class _Cache(caching.FunctionCache):
    _impl_class = _CacheImpl
