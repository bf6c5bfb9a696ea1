"""A Hub on 127.0.0.1 for tests: the endpoints that an upload uses, real HTTP, and faults on demand.

It stands in for huggingface.co, which no test may write to; the client is the real huggingface_hub. (The package
hf-local-hub is only the command line of a server that it does not contain.)
"""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

USER = "tester"


class FakeHub:
    """A running server with everything it was sent.

    Attributes:
        token: the only one accepted.
        role: of that token, "write" or "read".
        private: visibility asked for, by repository.
        commits: message and files {path: content} of each commit that arrived.
        seen_commits: attempts, those that failed too.
        faults: what happens to the next commits, in order: "drop" (the connection, in the middle), "hang", or a status.
    """

    def __init__(self, token: str) -> None:
        self.token, self.role = token, "write"
        self.private: dict[str, bool] = {}
        self.commits: list[tuple[str, dict[str, bytes]]] = []
        self.seen_commits = 0
        self.faults: list[str | int] = []
        self.large: dict[str, bytes] = {}
        self.released = threading.Event()

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def files(self) -> dict[str, bytes]:
        """What the repository holds after all commits."""
        return {path: content for _, files in self.commits for path, content in files.items()}

    def __enter__(self) -> "FakeHub":
        hub = self

        class Handler(_Handler):
            state = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the output belongs to the test."""

    def do_GET(self) -> None:
        self._body()
        if urlsplit(self.path).path == "/api/whoami-v2" and self._allowed():
            access = {"displayName": "test", "role": self.state.role}
            self._send({"name": USER, "type": "user", "orgs": [], "auth": {"accessToken": access}})
        else:
            self._send({"error": "not found"}, 404)

    def do_PUT(self) -> None:
        self.state.large[self.path.rsplit("/", 1)[1]] = self._body()
        self._send({})

    def do_POST(self) -> None:
        body, path = self._body(), unquote(urlsplit(self.path).path)
        if path == "/api/validate-yaml":
            self._send({"warnings": [], "errors": []})
        elif not self._allowed():
            return
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = [("lfs" if f["path"].endswith((".safetensors", ".bin")) else "regular") for f in files]
            answer = [
                {"path": f["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}
                for f, mode in zip(files, modes, strict=True)
            ]
            self._send({"files": answer})
        elif path.endswith(".git/info/lfs/objects/batch"):
            href = f"{self.state.endpoint}/large"
            objects = [
                {**item, "actions": {"upload": {"href": f"{href}/{item['oid']}"}}}
                for item in json.loads(body)["objects"]
            ]
            self._send({"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            self._commit(path, body)
        else:
            self._send({"error": f"no {path}"}, 404)

    def _create(self, asked: dict[str, Any]) -> None:
        repo = f"{asked.get('organization') or USER}/{asked['name']}"
        exists = repo in self.state.private
        self.state.private.setdefault(repo, asked.get("visibility") == "private" or bool(asked.get("private")))
        self._send({"url": f"{self.state.endpoint}/{repo}", "name": repo}, 409 if exists else 200)

    def _commit(self, path: str, body: bytes) -> None:
        self.state.seen_commits += 1
        fault = self.state.faults.pop(0) if self.state.faults else None
        if fault == "hang":
            self.state.released.wait(60)
            self.close_connection = True
        elif fault == "drop":
            self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"commitUrl"')
            self.close_connection = True
        elif isinstance(fault, int):
            self._send({"error": "out of order"}, fault)
        else:
            self._store([json.loads(line) for line in body.splitlines()])
            url = f"{self.state.endpoint}/{path.split('/commit/')[0].removeprefix('/api/models/')}/commit/{'0' * 40}"
            self._send({"success": True, "commitOid": "0" * 40, "commitUrl": url})

    def _store(self, lines: list[dict[str, Any]]) -> None:
        message, files = "", {}
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.state.large[value["oid"]]
        self.state.commits.append((message, files))

    def _allowed(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {self.state.token}":
            return True
        self._send({"error": "Invalid username or password."}, 401)
        return False

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, answer: dict[str, Any], status: int = 200) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
