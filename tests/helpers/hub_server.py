"""A Hugging Face Hub on 127.0.0.1, as much of one as the real client asks for when it downloads and pushes.

What it answers (status codes, headers, error codes, the shape of the JSON) is what https://huggingface.co answers; files are
served by the Hub itself, as it does with small ones. What it answers to a push is in `hub_pushes`. `Hub.faults` makes it fail.
"""

import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from helpers.card_rules import metadata_errors
from helpers.hub_pushes import EXPIRED, READER, TOKEN, Pushes, Rejection, commit_of, oid


@dataclass
class Fault:
    """What goes wrong with the next requests whose method and path, with a space between them, match a pattern."""

    pattern: str
    times: int
    status: int | None = None
    """The answer; None where the connection is cut instead."""
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int = 0
    """How many bytes of the request's or the answer's body go through before the connection is cut."""


class Hub:
    """`with Hub() as hub: hub.add("org/name", folder); subprocess.run(..., env=hub.environment(home))`."""

    def __init__(self):
        self.repositories: dict[tuple[str, str], dict[str, dict[str, bytes]]] = {}
        self.private: set[tuple[str, str]] = set()
        self.gated: set[tuple[str, str]] = set()
        self.requests: list[str] = []
        self.commits: dict[tuple[str, str], dict[str, dict[str, bytes]]] = {}
        self.log: list[tuple[str, str, str, str]] = []
        """Of each push: the repository, the revision, the first line of its message and the commit."""
        self.stored: dict[tuple[str, str], bytes] = {}
        """What was uploaded to the storage of large files, by the repository and its sha256."""
        self.faults: list[Fault] = []

    def __enter__(self) -> "Hub":
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def add(self, name, files, *, kind="models", revision="main", private=False, gated=False) -> str:
        """Puts a folder, or a dictionary of bytes by path, at a revision of a repository; returns the commit."""
        if not isinstance(files, dict):
            folder = Path(files)
            files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        self.repositories.setdefault((kind, name), {})[revision] = files
        self.commits.setdefault((kind, name), {})[commit_of(files)] = files
        for chosen, names in ((private, self.private), (gated, self.gated)):
            if chosen:
                names.add((kind, name))
        return commit_of(files)

    def control(self, what: str, value) -> dict:
        """What a test's client asks of the tests' server: to fail from now on, or what is on it."""
        if what == "faults":
            self.faults = [Fault(**fault) for fault in value]
        if what == "log":
            return {"log": self.log}
        return {
            f"{name}@{revision}": [commit_of(files), sorted(files)]
            for (_, name), revisions in self.repositories.items()
            for revision, files in revisions.items()
        }

    def log_of(self, name: str) -> list[str]:
        """The commits that were pushed to a repository, in their order."""
        return [commit for repository, _, _, commit in self.log if repository == name]

    def environment(self, home) -> dict[str, str]:
        """What a client's process needs to take this server for the Hub, with a cache of its own."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}


class _Handler(Pushes, BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        target = urlsplit(self.path)
        request = f"{self.command} {unquote(target.path)}"
        self.hub.requests.append(request)
        faults = [] if target.path.startswith("/tests/") else self.hub.faults
        self.fault = next((f for f in faults if f.times > 0 and re.search(f.pattern, request)), None)
        if self.fault is not None:
            self.fault.times -= 1
        cuts_request = self.fault is not None and self.fault.status is None and self.command not in ("GET", "HEAD")
        length = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self._chunks(self.fault.cut_after if cuts_request else None)
        else:
            self.body = self.rfile.read(min(length, self.fault.cut_after) if cuts_request else length)
        if cuts_request:
            return self._cut()
        parts = [unquote(part) for part in target.path.strip("/").split("/")]
        if parts == ["api", "validate-yaml"]:
            return self._validate(json.loads(self.body)["content"])
        form = self.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded")
        query = {**parse_qs(target.query), **(parse_qs(self.body.decode()) if form else {})}
        try:
            if self.fault is not None and self.fault.status is not None:
                raise Rejection(self.fault.status, "", "Out of order", self.fault.headers)
            if self.headers.get("Authorization") == f"Bearer {EXPIRED}":
                raise Rejection(401, "", "Invalid credentials in Authorization header")
            if self.command in ("GET", "HEAD") or "paths-info" in parts:
                self._answer(parts, query)
            else:
                self._push(parts, query)
        except Rejection as rejection:
            text = json.dumps({"error": rejection.message}).encode()
            headers = {"X-Error-Code": rejection.code, "X-Error-Message": rejection.message, **rejection.headers}
            self._send(rejection.status, text, headers)

    do_HEAD = do_POST = do_PUT = do_GET

    def _chunks(self, most: int | None) -> bytes:
        body = b""
        while most is None or len(body) < most:
            size = int(self.rfile.readline().strip() or b"0", 16)
            body += self.rfile.read(size)
            self.rfile.readline()
            if not size:
                break
        return body

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_):
        pass

    def _answer(self, parts: list[str], query: dict[str, list[str]]) -> None:
        if parts[0] == "api" and len(parts) >= 4:
            kind, name, what = parts[1], "/".join(parts[2:4]), parts[4] if len(parts) > 4 else None
            revision = parts[5] if len(parts) > 5 else "main"
            revision = "main" if what in ("refs", "auth-check") else revision
            commit, files = self._files(kind, name, revision, open_to_all=True)
            if what in (None, "revision"):
                return self._json(self._info(kind, name, commit, files))
            if what == "refs":
                return self._json(self._refs(kind, name))
            if what == "auth-check":
                self._may_write(kind, name)
                return self._json({})
            if what == "tree":
                return self._json(_tree(files, "/".join(parts[6:]), query.get("recursive") in (["True"], ["true"])))
            if what == "paths-info":
                every = _tree(files, "", recursive=True)
                return self._json([entry for entry in every if entry["path"] in query["paths"]])
        if "resolve" in parts:
            at = parts.index("resolve")
            kind, name = ("datasets", parts[1:at]) if parts[0] == "datasets" else ("models", parts[:at])
            commit, files = self._files(kind, "/".join(name), parts[at + 1])
            path = "/".join(parts[at + 2 :])
            if path not in files:
                raise Rejection(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
            headers = {"X-Repo-Commit": commit, "ETag": f'"{oid(files[path])}"', "Accept-Ranges": "bytes"}
            headers["Content-Type"] = "application/octet-stream"
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if wanted is None:
                return self._send(200, files[path], headers)
            start, size = int(wanted[1]), len(files[path])
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
            return self._send(206, files[path][start:], headers)
        raise Rejection(404, "", "Sorry, we can't find the page you are looking for.")

    def _validate(self, content: str) -> None:
        errors = [f"Error: {message}" for message in metadata_errors(content)]
        status = 400 if errors else 200
        if self.headers.get("Accept") == "text/plain":  # as `ModelCard.validate` asks
            return self._send(
                status, "\n".join(f"- {error}" for error in errors).encode(), {"Content-Type": "text/plain"}
            )
        found = {"errors": [{"message": error} for error in errors], "warnings": []}
        self._send(status, json.dumps(found).encode(), {"Content-Type": "application/json; charset=utf-8"})

    def _files(self, kind: str, name: str, revision: str, open_to_all: bool = False) -> tuple[str, dict[str, bytes]]:
        sent = self.headers.get("Authorization")
        known, allowed = (kind, name) in self.hub.repositories, sent in (f"Bearer {TOKEN}", f"Bearer {READER}")
        if not known or ((kind, name) in self.hub.private and not allowed):
            # The Hub does not tell those who may not read a repository from there being none.
            if sent is None:
                raise Rejection(401, "RepoNotFound", "Invalid username or password.")
            raise Rejection(404, "RepoNotFound", "Repository not found")
        if (kind, name) in self.hub.gated and not (allowed or open_to_all):
            raise Rejection(
                403 if sent else 401, "GatedRepo", f"Access to {name} is restricted and you are not allowed"
            )
        revisions = self.hub.repositories[kind, name]
        by_commit = self.hub.commits[kind, name]
        if revision not in revisions and revision not in by_commit:
            raise Rejection(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = revisions[revision] if revision in revisions else by_commit[revision]
        return commit_of(files), files

    def _info(self, kind: str, name: str, commit: str, files: dict[str, bytes]) -> dict:
        return {
            "_id": hashlib.md5(name.encode()).hexdigest()[:24],
            "id": name,
            "sha": commit,
            "private": (kind, name) in self.hub.private,
            "gated": "auto" if (kind, name) in self.hub.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": _tags(files),
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "siblings": [{"rfilename": path} for path in sorted(files)],
        }

    def _json(self, value) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json; charset=utf-8"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            cut = self.fault is not None and self.fault.status is None
            self.wfile.write(body[: self.fault.cut_after] if cut else body)
            if cut:
                self._cut()


def _tags(files: dict[str, bytes]) -> list[str]:
    """Of the tags that the Hub makes of a card's metadata, that of the licence."""
    found = re.search(rb"^license: ([\w.+-]+)$", files.get("README.md", b""), re.MULTILINE)
    return [f"license:{found[1].decode()}"] if found else []


def _tree(files: dict[str, bytes], folder: str, recursive: bool) -> list[dict]:
    start = f"{folder}/" if folder else ""
    inside = {path: content for path, content in files.items() if path.startswith(start)}
    if folder and not inside:
        raise Rejection(404, "EntryNotFound", f"{folder} does not exist")
    entries = {}
    for path, content in sorted(inside.items()):
        steps = path.removeprefix(start).split("/")
        for depth in range(1, len(steps)):
            above = start + "/".join(steps[:depth])
            if depth == 1 or recursive:
                entries[above] = {"type": "directory", "oid": oid(above.encode()), "size": 0, "path": above}
        if len(steps) == 1 or recursive:
            entries[path] = {"type": "file", "oid": oid(content), "size": len(content), "path": path}
    return list(entries.values())
