"""A hub on loopback: the endpoints that huggingface_hub's snapshot_download asks, and its faults.

    GET       /api/models/OWNER/NAME/revision/REVISION     the commit
    GET       /api/models/OWNER/NAME/tree/COMMIT           the files
    HEAD GET  /OWNER/NAME/resolve/COMMIT/FILE              a file, whole or from a byte on

As on the real hub a gated repository shows its list of files to everyone, and refuses the files.
"""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CODES = {
    "GatedRepo": "Access to this model is restricted.",
    "RepoNotFound": "Repository not found",
}
BAD_TOKEN = "Invalid credentials in Authorization header"


@dataclass
class Repo:
    """A folder as a repository, and what goes wrong with it."""

    folder: Path
    gate: int | None = None  # 401 or 403: every file is refused with it
    status: int | None = None  # every endpoint answers this
    page: bool = False  # a web page in place of an answer, as in a hotel
    anonymous: bool = False  # a plain file server: it names no commit
    drops: dict[str, list[int]] = field(default_factory=dict)  # file: bytes sent until the cut

    @property
    def files(self) -> dict[str, bytes]:
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in paths}

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(self.files).encode()).hexdigest()


@dataclass(frozen=True)
class Request:
    method: str
    repo: str
    file: str | None  # None: the API
    range: str | None


class Hub(ThreadingHTTPServer):
    """Serves `repos` by name, and keeps every request that it saw."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.seen: list[Request] = []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fetched(self, repo):
        """The files of `repo` whose content was asked for, in order."""
        return [r.file for r in self.seen if (r.method, r.repo) == ("GET", repo) and r.file]

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """A client that hangs up is no event."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_):
        """Tests stay quiet."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name, what, file = "/".join(parts[2:4]), parts[4], None
        elif parts[2:3] == ["resolve"]:
            name, what, file = "/".join(parts[:2]), "file", "/".join(parts[4:])
        else:
            return self.say(404, b"")
        self.server.seen.append(Request(self.command, name, file, self.headers["Range"]))
        repo = self.server.repos.get(name)
        if repo is None:
            return self.refuse(404, "RepoNotFound")
        if repo.status:
            return self.refuse(repo.status, None)
        if repo.page:
            return self.say(200, b"<html>Welcome to the hotel's network</html>")
        if what == "file":
            return self.file(repo, file)
        return self.say(200, json.dumps(self.listed(name, repo, what)).encode())

    def listed(self, name, repo, what):
        if what == "revision":
            siblings = [{"rfilename": file} for file in repo.files]
            return {"_id": "0", "id": name, "sha": repo.commit, "siblings": siblings}
        return [
            {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for file, data in repo.files.items()
        ]

    def file(self, repo, file):
        if repo.gate:
            return self.refuse(repo.gate, "GatedRepo")
        data = repo.files[file]
        etag = hashlib.sha256(data).hexdigest()
        headers = {"ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if not repo.anonymous:
            headers["X-Repo-Commit"] = repo.commit
        status, start = 200, 0
        if self.headers["Range"]:
            start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        cuts = repo.drops.get(file, []) if self.command == "GET" else []
        return self.say(status, data[start:], headers, cuts.pop(0) if cuts else None)

    def refuse(self, status, code):
        said = CODES.get(code, BAD_TOKEN if status == 401 else "out of order")
        headers = {"X-Error-Message": said} | ({"X-Error-Code": code} if code else {})
        self.say(status, json.dumps({"error": said}).encode(), headers)

    def say(self, status, body, headers=None, cut=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
