"""Answers of the tests' Hub to a push: making repositories and branches, the storage of large files, commits.

A commit takes effect as a whole or not at all, as on https://huggingface.co.
"""

import base64
import hashlib
import json
from typing import Any

TOKEN = "hf_theTokenThatMayReadPrivateRepositories"  # and write to those of its account, "org"
READER = "hf_aTokenThatMayReadButNotWrite"
EXPIRED = "hf_aTokenThatHasExpired"

LARGE = (".safetensors", ".bin", ".pt", ".pth")  # what the Hub's own .gitattributes keep in the storage of large files


def commit_of(files: dict[str, bytes]) -> str:
    lines = [f"{path} {oid(content)}" for path, content in sorted(files.items())]
    return hashlib.sha1("\n".join(lines).encode()).hexdigest()


def oid(content: bytes) -> str:
    """The id that git gives to a file of this content: the Hub's ETag of a file outside LFS."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Rejection(Exception):
    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None):
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}


class Pushes:
    """Part of the handler of requests; `hub`, `headers` and `body` are the handler's."""

    hub: Any
    body: bytes

    def _push(self, parts: list[str], query: dict[str, list[str]]) -> None:
        if parts == ["api", "repos", "create"]:
            return self._create(json.loads(self.body))
        if parts == ["api", "validate-yaml"]:
            return self._json({"errors": [], "warnings": []})
        if parts[0] == "tests":
            return self._json(self.hub.control(parts[1], json.loads(self.body)))
        if parts[0] == "storage":
            name, checksum = "/".join(parts[1:3]), parts[3]
            if hashlib.sha256(self.body).hexdigest() != checksum:
                raise Rejection(400, "", "The content does not have this checksum")
            self.hub.stored[name, checksum] = self.body
            return self._send(200, b"", {"ETag": f'"{checksum}"'})
        if parts[-4:] == ["info", "lfs", "objects", "batch"] or parts[-3:] == ["info", "lfs", "verify"]:
            kind, name = "models", "/".join(parts[:2]).removesuffix(".git")
            asked = json.loads(self.body)
            self._may_write(
                kind, name, pull_request="ref" not in asked
            )  # the client names no branch for a pull request
            return self._verify(name, asked) if parts[-1] == "verify" else self._batch(name, asked)
        if parts[0] == "api" and len(parts) >= 6:
            kind, name, what, revision = parts[1], "/".join(parts[2:4]), parts[4], parts[5]
            pull_request = query.get("create_pr") == ["1"]
            self._may_write(kind, name, pull_request)
            if what == "branch":
                return self._branch(kind, name, revision)
            _, files = self._files(kind, name, revision)
            if what == "preupload":
                return self._json({"files": [_mode(file, files) for file in json.loads(self.body)["files"]]})
            if what == "commit":
                return self._commit(kind, name, revision, files, pull_request)
        raise Rejection(404, "", "Sorry, we can't find the page you are looking for.")

    def _may_write(self, kind: str, name: str, pull_request: bool = False) -> None:
        sent = self.headers.get("Authorization")
        if sent is None:
            raise Rejection(401, "", "Invalid username or password.")
        if (kind, name) in self.hub.repositories:
            self._files(kind, name, "main", open_to_all=True)
        allowed = [f"Bearer {TOKEN}"] + ([f"Bearer {READER}"] if pull_request else [])
        if sent not in allowed or not name.startswith("org/"):
            raise Rejection(403, "", f"You don't have the rights to write to {name}")

    def _create(self, asked: dict) -> None:
        name = f"{asked['organization'] or 'org'}/{asked['name']}"
        kind = asked.get("type", "model") + "s"
        self._may_write(kind, name)
        answer = {"url": f"{self.hub.url}/{name}", "name": name, "id": "1"}
        if (kind, name) in self.hub.repositories:
            text = json.dumps({**answer, "error": "You already created this model repo"}).encode()
            return self._send(409, text, {"Content-Type": "application/json"})
        attributes = "".join(f"*{end} filter=lfs diff=lfs merge=lfs -text\n" for end in LARGE)
        self.hub.add(
            name, {".gitattributes": attributes.encode()}, kind=kind, private=asked.get("visibility") == "private"
        )
        return self._json(answer)

    def _branch(self, kind: str, name: str, branch: str) -> None:
        branches = self.hub.repositories[kind, name]
        if branch in branches:
            raise Rejection(409, "", f"Reference already exists: {branch}")
        branches[branch] = branches["main"]
        self._json({})

    def _refs(self, kind: str, name: str) -> dict:
        refs = [
            {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": commit_of(files)}
            for branch, files in self.hub.repositories[kind, name].items()
            if not branch.startswith("refs/")
        ]
        return {"branches": refs, "converts": [], "tags": []}

    def _batch(self, name: str, asked: dict) -> None:
        objects = []
        for wanted in asked["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if (name, wanted["oid"]) not in self.hub.stored:
                upload = {"href": f"{self.hub.url}/storage/{name}/{wanted['oid']}"}
                answer["actions"] = {"upload": upload, "verify": {"href": f"{self.hub.url}/{name}.git/info/lfs/verify"}}
            objects.append(answer)
        self._json({"transfer": "basic", "objects": objects})

    def _verify(self, name: str, asked: dict) -> None:
        if len(self.hub.stored.get((name, asked["oid"]), b"")) != asked["size"]:
            raise Rejection(404, "", "There is no such object")
        self._json({})

    def _commit(self, kind: str, name: str, revision: str, files: dict[str, bytes], pull_request: bool) -> None:
        lines = [json.loads(line) for line in self.body.splitlines()]
        summary, files = lines[0]["value"]["summary"], dict(files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if (name, value["oid"]) not in self.hub.stored:
                    raise Rejection(400, "", f"Your push was rejected: {value['path']} was never uploaded")
                files[value["path"]] = self.hub.stored[name, value["oid"]]
            else:
                del files[value["path"]]
        commit = commit_of(files)
        answer = {"success": True, "commitOid": commit, "commitUrl": f"{self.hub.url}/{name}/commit/{commit}"}
        if pull_request:
            revision = "refs/pr/1"
            answer["pullRequestUrl"] = f"{self.hub.url}/{name}/discussions/1"
        self.hub.add(name, files, kind=kind, revision=revision)
        self.hub.log.append((name, revision, summary, commit))
        self._json(answer)


def _mode(file: dict, files: dict[str, bytes]) -> dict:
    large = file["path"].endswith(LARGE)
    answer = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
    if file["path"] in files:
        there = files[file["path"]]
        answer["oid"] = hashlib.sha256(there).hexdigest() if large else oid(there)
    return answer
