"""A model hub on this machine: as much of the Hugging Face hub's HTTP interface as its own client needs to create a
repository, commit small files, list a model and download it."""

import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]
ROOM = 10**12  # bytes


class Line:
    """What goes over it: bytes of files sent so far, and after how many it breaks."""

    def __init__(self) -> None:
        self.sent, self.breaks_after = 0, float("inf")


@contextlib.contextmanager
def serve(line: Line | None = None) -> Iterator[tuple[str, dict[str, Files]]]:
    """(address for HF_ENDPOINT, {repository: {path: content}}), until the block ends."""
    repositories: dict[str, Files] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(repositories, line or Line()))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", repositories
    finally:
        server.shutdown()
        server.server_close()


def connect(monkeypatch: Any, address: str) -> None:
    """Have the hub's client talk to `address`, from a machine with room for everything that the shipped list has."""
    from huggingface_hub import constants

    from meta_animator.published import fetching

    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: fetching.shutil._ntuple_diskusage(2 * ROOM, ROOM, ROOM))
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def _handler(repositories: dict[str, Files], line: Line) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def answer(self, content: bytes, status: int = 200, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def answer_json(self, value, status: int = 200, **headers: str) -> None:
            self.answer(json.dumps(value).encode(), status, Content_Type="application/json", **headers)

        def not_there(self) -> None:
            self.answer_json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
                return self.send_file(*found.groups())
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/.*)?", path):
                return self.describe(*found.groups())
            return self.not_there()

        do_HEAD = do_GET

        def send_file(self, repository: str, name: str) -> None:
            files = repositories.get(repository)
            if files is None:
                return self.not_there()
            if name not in files:
                return self.answer_json({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            tag = hashlib.sha1(files[name]).hexdigest()
            headers = {"ETag": f'"{tag}"', "X-Repo-Commit": _commit(files)}
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if self.command == "HEAD" or not asked:
                return self.send(files[name], 200, **headers)
            start, end = int(asked[1]), min(int(asked[2] or len(files[name]) - 1), len(files[name]) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(files[name])}"
            return self.send(files[name][start : end + 1], 206, **headers)

        def send(self, content: bytes, status: int, **headers: str) -> None:
            if self.command == "HEAD" or line.sent + len(content) <= line.breaks_after:
                line.sent += len(content) if self.command == "GET" else 0
                return self.answer(content, status, **headers)
            part = content[: max(0, int(line.breaks_after) - line.sent)]
            line.sent += len(part)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(part)
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return None

        def describe(self, repository: str, what: str | None) -> None:
            files = repositories.get(repository)
            if files is None:
                return self.not_there()
            if what and what.startswith("/tree"):
                entries = [{"type": "file", "path": n, "size": len(b), "oid": _commit({n: b})} for n, b in files.items()]
                return self.answer_json(entries)
            siblings = [_sibling(name, content) for name, content in files.items()]
            return self.answer_json({"id": repository, "sha": _commit(files), "siblings": siblings, "tags": [], "private": False})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked.get('organization') or 'me'}/{asked['name']}"
                repositories.setdefault(name, {})
                return self.answer_json({"url": f"http://{self.headers['Host']}/{name}", "name": name})
            if self.path == "/api/validate-yaml":
                return self.answer_json({"errors": [], "warnings": []})
            repository, what = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(\w+)/main.*", self.path).groups()
            if what == "preupload":
                files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]]
                return self.answer_json({"files": files})
            lines = [json.loads(line) for line in body.splitlines() if line]
            for value in (line["value"] for line in lines if line["key"] == "file"):
                repositories[repository][value["path"]] = base64.b64decode(value["content"])
            sha = _commit(repositories[repository])
            url = f"http://{self.headers['Host']}/{repository}/commit/{sha}"
            return self.answer_json({"commitUrl": url, "commitOid": sha, "success": True})

    return Handler


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    about = {"rfilename": name, "size": len(content)}
    if name.endswith(".safetensors"):
        about["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return about


def _commit(files: Files) -> str:
    return hashlib.sha1(b"".join(name.encode() + content for name, content in sorted(files.items()))).hexdigest()
