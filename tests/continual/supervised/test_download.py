"""Downloads from a server of our own: whole, interrupted, wrong, and none."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from support.idx_files import mnist_files

from sparserl.continual.supervised.data import DATASETS, IDX_FILES, fetch, idx_files, load
from sparserl.errors import ConfigError

CONTENT = np.random.default_rng(0).bytes(200_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@dataclass
class Server:
    """What the server has, how it behaves, and what it was asked for."""

    files: dict[str, bytes] = field(default_factory=lambda: {"x.gz": CONTENT})
    address: str = ""
    says_length: bool = True
    ends_after: int | None = None
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            state.requests.append(name)
            if name not in state.files:
                self.send_error(404)
                return
            content = state.files[name]
            self.send_response(200)
            if state.says_length:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: state.ends_after])

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.address = f"http://127.0.0.1:{http.server_port}/"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        http.shutdown()
        thread.join()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


@pytest.mark.parametrize("says_length", [True, False])
def test_a_file_is_downloaded_whole_into_a_new_folder(says_length: bool, server: Server, tmp_path: Path) -> None:
    server.says_length = says_length
    path = tmp_path / "a" / "b" / "x.gz"
    fetch(f"{server.address}x.gz", path, MD5)
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["x.gz"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_an_interrupted_download_leaves_nothing_and_is_done_again(server: Server, tmp_path: Path) -> None:
    server.ends_after = 70_000
    path = tmp_path / "x.gz"
    with pytest.raises(ConfigError, match=r"^cannot download http://127.*/x\.gz: .*70000 bytes read, 130000 more.*$"):
        fetch(f"{server.address}x.gz", path, MD5)
    assert names(tmp_path) == []
    server.ends_after = None
    fetch(f"{server.address}x.gz", path, MD5)
    assert path.read_bytes() == CONTENT


def test_a_wrong_checksum_deletes_what_arrived(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"x\.gz: MD5 hash of downloaded file .* got {MD5}\. Deleted"):
        fetch(f"{server.address}x.gz", tmp_path / "x.gz", "0" * 32)
    assert names(tmp_path) == []


def test_a_file_that_is_not_there(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^cannot download http://127.*/y\.gz: 404 Client Error: Not Found for url"):
        fetch(f"{server.address}y.gz", tmp_path / "y.gz", MD5)
    assert names(tmp_path) == []


def test_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConfigError, match=r"^cannot download http://127.*/x\.gz: \[Errno \d+\] Connection refused$"):
        fetch(f"http://127.0.0.1:{port}/x.gz", tmp_path / "x.gz", MD5)
    assert names(tmp_path) == []


def test_a_place_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot download .*x\.gz: .*(Not a directory|File exists): '.*/file'"):
        fetch(f"{server.address}x.gz", tmp_path / "file" / "x.gz", MD5)
    assert server.requests == []


def test_of_several_that_want_a_file_one_downloads_it(server: Server, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: fetch(f"{server.address}x.gz", tmp_path / "x.gz", MD5), range(4)))
    assert (tmp_path / "x.gz").read_bytes() == CONTENT
    assert server.requests == ["x.gz"]


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
    assert server.requests == [f"{name}.gz" for name in IDX_FILES]
    assert names(tmp_path / "mnist") == sorted(server.files)
