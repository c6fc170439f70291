"""A Hugging Face Hub of its own on this machine: what huggingface_hub asks of it to create, commit and download."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from huggingface_hub import constants

WRITER, READER = "hf_writer", "hf_reader"
"""Tokens with the right to write, and without."""
LICENCES = {"mit", "apache-2.0", "other"}


class Hub:
    """Its repositories, each a list of commits from the first, and the paths that were asked for."""

    def __init__(self) -> None:
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.requests: list[str] = []

    def add(self, repo: str, files: dict[str, bytes]) -> None:
        self.commits.setdefault(repo, []).append(files)

    def files(self, repo: str) -> dict[str, bytes]:
        return self.commits[repo][-1]


def sha_of(number: int) -> str:
    return hashlib.sha1(str(number).encode(), usedforsecurity=False).hexdigest()


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def answer(self, content: Any, status: int = 200, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def fail(self, status: int, message: str, code: str = "") -> None:
        self.answer({"error": message}, status, X_Error_Code=code, X_Error_Message=message)

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if path == "/api/validate-yaml":
            card = yaml.safe_load(json.loads(body)["content"].split("---")[1])
            wrong = (
                [] if card.get("license", "mit") in LICENCES else [{"message": '"license" must be one of [mit, ...]'}]
            )
            self.answer({"errors": wrong, "warnings": []}, 400 if wrong else 200)
        elif self.token not in (WRITER, READER):
            self.fail(401, "Invalid username or password.")
        elif self.token == READER:
            self.fail(403, "You don't have the rights to create a model under this namespace")
        elif path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            if repo in self.hub.commits:
                self.answer(
                    {"error": "You already created this model repo", "url": f"{constants.ENDPOINT}/{repo}"}, 409
                )
                return
            self.hub.add(repo, {".gitattributes": b""})
            if asked.get("private") or asked.get("visibility") == "private":
                self.hub.private.add(repo)
            self.answer({"url": f"{constants.ENDPOINT}/{repo}"})
        elif "/preupload/" in path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        elif "/commit/" in path:
            repo = path.removeprefix("/api/models/").split("/commit/")[0]
            files = dict(self.hub.files(repo))
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    del files[line["value"]["path"]]
            self.hub.add(repo, files)
            sha = sha_of(len(self.hub.commits[repo]) - 1)
            self.answer({"success": True, "commitOid": sha, "commitUrl": f"{constants.ENDPOINT}/{repo}/commit/{sha}"})
        else:
            self.fail(404, "Not found")

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.requests.append(f"/{path}")
        parts = path.removeprefix("api/models/").split("/")
        repo, (what, revision, *rest) = "/".join(parts[:2]), [*parts[2:], "", ""][: max(2, len(parts) - 2)]
        if repo not in self.hub.commits or (repo in self.hub.private and self.token != WRITER):
            self.fail(404 if self.token else 401, "Repository not found", "RepoNotFound")
            return
        commits = self.hub.commits[repo]
        shas = {sha_of(number): files for number, files in enumerate(commits)}
        sha = sha_of(len(commits) - 1) if revision in ("", "main") else revision
        if sha not in shas:
            self.fail(404, "Invalid rev id", "RevisionNotFound")
            return
        files = shas[sha]
        if what in ("", "revision"):
            siblings = [{"rfilename": name} for name in files]
            self.answer(
                {
                    "id": repo,
                    "modelId": repo,
                    "sha": sha,
                    "private": repo in self.hub.private,
                    "siblings": siblings,
                    "tags": [],
                }
            )
        elif what == "tree":
            self.answer(
                [{"type": "file", "path": name, "size": len(data), "oid": _etag(data)} for name, data in files.items()]
            )
        elif what == "resolve" and "/".join(rest) in files:
            data = files["/".join(rest)]
            self.answer(data, ETag=f'"{_etag(data)}"', X_Repo_Commit=sha)
        else:
            self.fail(404, "Entry not found", "EntryNotFound")

    do_HEAD = do_GET


def _etag(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


@contextmanager
def serving() -> Iterator[tuple[Hub, str]]:
    """A Hub and its address."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneHub", (Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
