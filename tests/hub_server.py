"""A Hugging Face Hub on 127.0.0.1, as much of one as the real client asks for when it downloads models and data sets.

What it answers (status codes, headers, error codes, the shape of the JSON) is what https://huggingface.co answers; files are
served by the Hub itself, as it does with small ones, and nothing can be pushed.
"""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from card_rules import metadata_errors

TOKEN = "hf_theTokenThatMayReadPrivateRepositories"


class Hub:
    """`with Hub() as hub: hub.add("org/name", folder); subprocess.run(..., env=hub.environment(home))`."""

    def __init__(self):
        self.repositories: dict[tuple[str, str], dict[str, dict[str, bytes]]] = {}
        self.private: set[tuple[str, str]] = set()
        self.gated: set[tuple[str, str]] = set()
        self.requests: list[str] = []

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
        for chosen, names in ((private, self.private), (gated, self.gated)):
            if chosen:
                names.add((kind, name))
        return commit_of(files)

    def environment(self, home) -> dict[str, str]:
        """What a client's process needs to take this server for the Hub, with a cache of its own."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}


def commit_of(files: dict[str, bytes]) -> str:
    lines = [f"{path} {oid(content)}" for path, content in sorted(files.items())]
    return hashlib.sha1("\n".join(lines).encode()).hexdigest()


def oid(content: bytes) -> str:
    """The id that git gives to a file of this content: the Hub's ETag of a file outside LFS."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Refusal(Exception):
    def __init__(self, status: int, code: str, message: str):
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        target = urlsplit(self.path)
        self.hub.requests.append(f"{self.command} {unquote(target.path)}")
        parts = [unquote(part) for part in target.path.strip("/").split("/")]
        if parts == ["api", "validate-yaml"]:
            return self._validate(json.loads(body)["content"])
        query = {**parse_qs(target.query), **parse_qs(body.decode())}
        try:
            self._answer(parts, query)
        except _Refusal as refusal:
            text = json.dumps({"error": refusal.message}).encode()
            self._send(refusal.status, text, {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message})

    do_HEAD = do_POST = do_GET

    def log_message(self, *_):
        pass

    def _answer(self, parts: list[str], query: dict[str, list[str]]) -> None:
        if parts[0] == "api" and len(parts) >= 4:
            kind, name, what = parts[1], "/".join(parts[2:4]), parts[4] if len(parts) > 4 else None
            revision = parts[5] if len(parts) > 5 else "main"
            commit, files = self._files(kind, name, revision, open_to_all=True)
            if what in (None, "revision"):
                return self._json(self._info(kind, name, commit, files))
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
                raise _Refusal(404, "EntryNotFound", "Entry not found")
            headers = {"X-Repo-Commit": commit, "ETag": f'"{oid(files[path])}"', "Accept-Ranges": "bytes"}
            return self._send(200, files[path], {**headers, "Content-Type": "application/octet-stream"})
        raise _Refusal(404, "", "Sorry, we can't find the page you are looking for.")

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
        known, allowed = (kind, name) in self.hub.repositories, sent == f"Bearer {TOKEN}"
        if not known or ((kind, name) in self.hub.private and not allowed):
            # The Hub does not tell those who may not read a repository from there being none.
            if sent is None:
                raise _Refusal(401, "RepoNotFound", "Invalid username or password.")
            raise _Refusal(404, "RepoNotFound", "Repository not found")
        if (kind, name) in self.hub.gated and not (allowed or open_to_all):
            raise _Refusal(403 if sent else 401, "GatedRepo", f"Access to {name} is restricted and you are not allowed")
        revisions = self.hub.repositories[kind, name]
        by_commit = {commit_of(files): files for files in revisions.values()}
        if revision not in revisions and revision not in by_commit:
            raise _Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = revisions.get(revision) or by_commit[revision]
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
            self.wfile.write(body)


def _tags(files: dict[str, bytes]) -> list[str]:
    """Of the tags that the Hub makes of a card's metadata, that of the licence."""
    found = re.search(rb"^license: ([\w.+-]+)$", files.get("README.md", b""), re.MULTILINE)
    return [f"license:{found[1].decode()}"] if found else []


def _tree(files: dict[str, bytes], folder: str, recursive: bool) -> list[dict]:
    start = f"{folder}/" if folder else ""
    inside = {path: content for path, content in files.items() if path.startswith(start)}
    if folder and not inside:
        raise _Refusal(404, "EntryNotFound", f"{folder} does not exist")
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
