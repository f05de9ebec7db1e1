"""Downloads from a server of our own: whole, interrupted, wrong, and none."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from support.idx_files import mnist_files

from sparserl.continual.supervised.data import DATASETS, IDX_FILES, idx_files, load
from sparserl.continual.supervised.download import fetch
from sparserl.errors import ConfigError

CONTENT = np.random.default_rng(0).bytes(200_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@dataclass
class Server:
    """What the server has, how it behaves, and what it was asked for."""

    files: dict[str, bytes] = field(default_factory=lambda: {"x.gz": CONTENT})
    address: str = ""
    has_range: bool = True
    says_length: bool = True
    ends_after: int | None = None
    delay_s: float = 0.0
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    @property
    def ranges(self) -> list[str | None]:
        return [asked for _, asked in self.requests]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, asked = self.path.lstrip("/"), self.headers["Range"]
            state.requests.append((name, asked))
            time.sleep(state.delay_s)
            if name not in state.files:
                self.send_error(404)
                return
            content, start = state.files[name], 0
            if asked is not None and state.has_range:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            if state.says_length:
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : state.ends_after])

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.address = f"http://127.0.0.1:{http.server_port}/"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        http.shutdown()
        thread.join()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_downloaded_whole_into_a_new_folder(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.gz"
    fetch(f"{server.address}x.gz", path, MD5)
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["x.gz"]
    assert server.ranges == [None]


def test_a_length_is_not_needed(server: Server, tmp_path: Path) -> None:
    server.says_length = False
    fetch(f"{server.address}x.gz", tmp_path / "x.gz", MD5)
    assert (tmp_path / "x.gz").read_bytes() == CONTENT


@pytest.mark.parametrize("has_range", [True, False])
def test_an_interrupted_download_goes_on(has_range: bool, server: Server, tmp_path: Path) -> None:
    server.has_range, server.ends_after = has_range, 70_000
    path = tmp_path / "x.gz"
    problem = (
        r"cannot download http://127.*/x\.gz: the connection ended after 70000 of 200000 bytes; "
        "70000 bytes are kept, the next --download goes on from there$"
    )
    with pytest.raises(ConfigError, match=problem):
        fetch(f"{server.address}x.gz", path, MD5)
    assert names(tmp_path) == ["x.gz.part"]
    assert (tmp_path / "x.gz.part").read_bytes() == CONTENT[:70_000]
    server.ends_after = None
    fetch(f"{server.address}x.gz", path, MD5)
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == ["x.gz"]
    assert server.ranges == [None, "bytes=70000-"]


def test_it_may_be_interrupted_twice(server: Server, tmp_path: Path) -> None:
    for end in (10_000, 150_000):
        server.ends_after = end
        with pytest.raises(ConfigError, match=f"after {end} of 200000 bytes"):
            fetch(f"{server.address}x.gz", tmp_path / "x.gz", MD5)
    server.ends_after = None
    fetch(f"{server.address}x.gz", tmp_path / "x.gz", MD5)
    assert (tmp_path / "x.gz").read_bytes() == CONTENT


def test_a_whole_partial_file_only_needs_its_name(server: Server, tmp_path: Path) -> None:
    (tmp_path / "x.gz.part").write_bytes(CONTENT)
    fetch(f"{server.address}x.gz", tmp_path / "x.gz", MD5)
    assert (tmp_path / "x.gz").read_bytes() == CONTENT
    assert names(tmp_path) == ["x.gz"]


@pytest.mark.parametrize("part", [b"", b"wrong", CONTENT + b"too long"], ids=["nothing", "a part", "more than all"])
def test_a_wrong_checksum_deletes_what_arrived(part: bytes, server: Server, tmp_path: Path) -> None:
    (tmp_path / "x.gz.part").write_bytes(part)
    md5 = MD5 if part else "0" * 32
    with pytest.raises(ConfigError, match=rf"MD5 \w{{32}} instead of {md5}; deleted .*x\.gz\.part, download it again"):
        fetch(f"{server.address}x.gz", tmp_path / "x.gz", md5)
    assert names(tmp_path) == []
    fetch(f"{server.address}x.gz", tmp_path / "x.gz", MD5)
    assert (tmp_path / "x.gz").read_bytes() == CONTENT


def test_a_file_that_is_not_there(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^cannot download http://127.*/y\.gz: HTTP Error 404: Not Found$"):
        fetch(f"{server.address}y.gz", tmp_path / "y.gz", MD5)
    assert names(tmp_path) == []


def test_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "x.gz.part").write_bytes(b"1234")
    with pytest.raises(ConfigError, match=r"/x\.gz: \[Errno \d+\] Connection refused; 4 bytes are kept, the next"):
        fetch(f"http://127.0.0.1:{port}/x.gz", tmp_path / "x.gz", MD5)
    assert names(tmp_path) == ["x.gz.part"]


def test_a_place_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write .*file/x\.gz\.part: (Not a directory|File exists)"):
        fetch(f"{server.address}x.gz", tmp_path / "file" / "x.gz", MD5)
    assert server.requests == []


def test_of_several_that_want_a_file_one_downloads_it(server: Server, tmp_path: Path) -> None:
    server.delay_s = 0.1
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: fetch(f"{server.address}x.gz", tmp_path / "x.gz", MD5), range(4)))
    assert (tmp_path / "x.gz").read_bytes() == CONTENT
    assert names(tmp_path) == ["x.gz"]
    assert len(server.requests) == 1


@pytest.mark.parametrize("look", [1, 2])
def test_a_partial_file_that_vanishes_under_the_hand_is_made_again(
    look: int, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, stat = [0], Path.stat

    def vanishing(self: Path, **kwargs: bool) -> os.stat_result:
        if self.suffix == ".part":
            looks[0] += 1
            if looks[0] == look:
                os.unlink(self)  # another process finished it and moved it away
        return stat(self, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", vanishing)
        fetch(f"{server.address}x.gz", tmp_path / "x.gz", MD5)
    assert (tmp_path / "x.gz").read_bytes() == CONTENT


def test_a_data_set_is_downloaded_once(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files = mnist_files([1, 0, 2], [3])
    md5 = tuple(hashlib.md5(server.files[f"{name}.gz"]).hexdigest() for name in IDX_FILES)
    read = idx_files(server.address, md5)  # type: ignore[arg-type]  # four of them
    monkeypatch.setitem(DATASETS, "mnist", replace(DATASETS["mnist"], read=read))
    with pytest.raises(ConfigError, match="no train-images"):
        load("mnist", tmp_path)
    assert server.requests == []
    for _ in range(2):
        data = load("mnist", tmp_path, download=True)
        assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([1, 0, 2], [3])
    assert [name for name, _ in server.requests] == [f"{name}.gz" for name in IDX_FILES]
    assert names(tmp_path / "mnist") == sorted(server.files)
