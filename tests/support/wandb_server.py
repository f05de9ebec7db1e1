"""A W&B server on the loopback: says yes to a run and to a workspace, remembers what it was asked, and can die."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import wandb

PROJECT = {"id": "UHJvamVjdA==", "name": "tests", "entity": {"id": "RW50aXR5", "name": "me"}, "entityName": "me"}
KEY = "0" * 40


def _run(server: WandbServer, variables: Mapping[str, Any]) -> dict[str, Any]:
    bucket = {"id": "QnVja2V0", "name": variables["name"], "displayName": variables["displayName"], "config": "{}"}
    return {"upsertBucket": {"bucket": {**bucket, "historyLineCount": 0, "project": PROJECT}, "inserted": True}}


def _run_files(server: WandbServer, variables: Mapping[str, Any]) -> dict[str, Any]:
    files = [{"name": name, "uploadUrl": f"{server.url}/upload/{name}"} for name in variables["files"]]
    return {"createRunFiles": {"runID": "run", "uploadHeaders": [], "files": files}}


def _view(server: WandbServer, variables: Mapping[str, Any]) -> dict[str, Any]:
    view = {key: variables[key] for key in ("name", "displayName", "spec")}
    own = {"id": "Vmlldw==", "type": "project-view", "description": "", "updatedAt": "2026-01-01T00:00:00"}
    return {"upsertView": {"view": {**view, **own, "project": PROJECT}, "inserted": True}}


def _viewer(server: WandbServer, variables: Mapping[str, Any]) -> dict[str, Any]:
    return {"viewer": {"id": "VXNlcg==", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}


ANSWERS: dict[str, Callable[[WandbServer, Mapping[str, Any]], dict[str, Any]]] = {
    "upsertBucket": _run,
    "createRunFiles": _run_files,
    "upsertView": _view,
    "viewer": _viewer,
}
"""Field of a GraphQL query -> the data that answers it."""


class WandbServer(ThreadingHTTPServer):
    """Answers on a free port of 127.0.0.1 until it is closed.

    Attributes:
        asked: (field, variables) of each GraphQL query that was answered.
        dead: Set from outside: hangs up on everybody from then on.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.dead = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def log_message(self, *_: object) -> None: ...

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.dead:
            self.close_connection = True
            return
        data: Any = {}
        if self.path == "/graphql":
            query = json.loads(body)
            variables = query.get("variables") or {}
            for field, answer in ANSWERS.items():
                if field in query["query"]:
                    self.server.asked.append((field, variables))
                    data = answer(self.server, variables)
                    break
        reply = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    do_PUT = do_POST


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    server = WandbServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.dead = True
        server.shutdown()
        thread.join()
        server.server_close()


def only_this_account(monkeypatch: pytest.MonkeyPatch, folder: Path, url: str, key: str | None = None) -> None:
    """W&B sees this server and key (None: no key) and nothing of the machine's user."""
    for name in [name for name in os.environ if name.startswith("WANDB_") and "TIMEOUT" not in name]:
        monkeypatch.delenv(name, raising=False)
    if key is not None:
        monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("NETRC", str(folder / "netrc"))
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(folder / name.lower()))
    wandb.teardown()  # what it has read of the environment, it has read for good
