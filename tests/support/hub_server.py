"""A Hugging Face Hub on this machine, as far as uploading a folder needs one."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class HubServer:
    """What it was asked, and what was uploaded.

    Attributes:
        url: Where it listens.
        asked: Method and path of each request.
        tokens: That came with them.
        created: Bodies of requests for a repository.
        files: Path in the repository -> content.
        refuses: Status with which it answers everything, if any.
    """

    url: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    created: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    refuses: int | None = None

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        """To a request, as JSON."""
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            name = f"{self.created[-1].get('organization', '')}/{self.created[-1]['name']}"
            return {"url": f"{self.url}/{name}", "name": name, "id": name}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if "/preupload/" in path:
            asked = json.loads(body)["files"]
            return {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked]}
        if "/commit/" in path:
            for line in body.splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    self.files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            return {"commitUrl": f"{self.url}/me/repo/commit/abc", "commitOid": "abc", "success": True}
        return {"id": "me/repo", "sha": "abc", "siblings": [], "private": False}


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """Runs one in a thread."""
    state = HubServer()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            state.asked.append((self.command, path))
            state.tokens.add(self.headers.get("Authorization", ""))
            refused = {"error": "You are not\nallowed to"}
            text = json.dumps(refused if state.refuses else state.answer(path, body)).encode()
            self.send_response(state.refuses or 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = _answer  # as the library names them

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
