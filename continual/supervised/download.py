"""Downloading one file so that it is whole and right, or not there.

Decides how a download is resumed, checked and put in its place. Refuses to know what is downloaded, and never starts by
itself.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from http.client import HTTPException
from io import BufferedRandom
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from sparserl.errors import ConfigError

TIMEOUT_S = 30
CHUNK_BYTES = 1 << 16
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = 206, 416


def fetch(url: str, path: Path, md5: str) -> None:
    """Downloads a file; after a broken connection the next call goes on where this one stopped.

    What has arrived lies in `<path>.part`, which becomes `path` in one step once its checksum is right. Of several
    processes that want the same file one downloads it and the others wait.

    Args:
        url: Where the file is.
        path: Where it goes; its folder is made.
        md5: MD5 of the file in hexadecimal. It guards against damage, not against forgery.

    Raises:
        ConfigError: If the file cannot be had or written (what has arrived is kept), or its checksum is wrong (what has
            arrived is deleted).
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(part) as file:
            if path.exists():  # another process was first
                part.unlink()
                return
            _complete(url, part, file)
            file.seek(0)
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            if found != md5:
                part.unlink()
                raise ConfigError(f"{url} came with MD5 {found} instead of {md5}; deleted {part}, download it again")
            part.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write {part}: {error.strerror}") from None


def _locked(part: Path) -> BufferedRandom:
    """The partial file, open and locked until it is closed; waits for another process that downloads it."""
    while True:
        file = part.open("a+b")
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(file.fileno()), part.stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()  # meanwhile the other process has moved or deleted what was opened here


def _complete(url: str, part: Path, file: BufferedRandom) -> None:
    """Receives what the partial file lacks; one line says why it cannot."""
    try:
        _receive(url, file, part.stem)
    except (OSError, HTTPException) as error:
        file.flush()
        kept = part.stat().st_size
        if not kept:
            part.unlink()
        reason = error.reason if type(error) is URLError else error
        hint = f"; {kept} bytes are kept, the next --download goes on from there" if kept else ""
        raise ConfigError(f"cannot download {url}: {reason}{hint}") from None


def _receive(url: str, file: BufferedRandom, name: str) -> None:
    start = file.seek(0, os.SEEK_END)
    try:
        response = urlopen(Request(url, headers={"Range": f"bytes={start}-"} if start else {}), timeout=TIMEOUT_S)
    except HTTPError as error:
        with error:
            if start and error.code == RANGE_NOT_SATISFIABLE:  # nothing is lacking; the checksum will tell
                return
            raise
    with response:
        if response.status != PARTIAL_CONTENT:  # the server sends all of it
            start = file.truncate(0)
        length = response.headers["Content-Length"]
        total = None if length is None else start + int(length)
        with tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=name, disable=None) as bar:
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
    # http.client does not mind a connection that ends early.
    if total is not None and (arrived := file.tell()) < total:
        raise ConnectionError(f"the connection ended after {arrived} of {total} bytes")
