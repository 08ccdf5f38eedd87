"""A hub on this machine's loopback: the few answers that a download needs, from folders."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LFS = ".safetensors"
"""Files whose SHA-256 the hub lists."""


@contextmanager
def serve(repositories: Mapping[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """The endpoint of a hub with these repositories, each at COMMIT, and the files it was asked
    for, in order."""
    asked: list[str] = []
    handler = partial(_Handler, repositories, asked)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, repositories, asked, *arguments):
        self.repositories, self.asked = repositories, asked
        super().__init__(*arguments)

    def log_message(self, *arguments):
        """Nothing on standard error."""

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self._answer(with_body=True)

    def _answer(self, *, with_body):
        words = unquote(urlsplit(self.path).path).strip("/").split("/")
        if words[:2] == ["api", "models"]:
            repository, revision = "/".join(words[2:4]), (words[5:] or ["main"])[0]
            self._describe(repository, revision)
        else:
            self._send_file("/".join(words[:2]), words[3], "/".join(words[4:]), with_body)

    def _describe(self, repository, revision):
        folder = self.repositories.get(repository)
        if folder is None:
            self._refuse("RepoNotFound")
        elif revision not in ("main", COMMIT):
            self._refuse("RevisionNotFound")
        else:
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            siblings = [
                {
                    "rfilename": path.relative_to(folder).as_posix(),
                    "size": path.stat().st_size,
                    **({"lfs": listed(path)} if path.suffix == LFS else {}),
                }
                for path in files
            ]
            self._send(
                json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode(),
                {"Content-Type": "application/json"},
            )

    def _send_file(self, repository, revision, name, with_body):
        path = self.repositories[repository] / name
        if with_body:
            self.asked.append(name)
        headers = {"X-Repo-Commit": revision, "ETag": f'"{_digest(path)}"'}
        self._send(path.read_bytes(), headers, with_body=with_body)

    def _send(self, data, headers, *, with_body=True):
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(data)

    def _refuse(self, code):
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def listed(path):
    """What the hub says of a large file."""
    return {"sha256": _digest(path), "size": path.stat().st_size, "pointerSize": 1}


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
