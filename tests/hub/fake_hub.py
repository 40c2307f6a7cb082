"""A stand-in for the Hugging Face Hub on this machine: enough of its API to create, push, and load model repositories.

Everything lives in memory. Only the standard library is used. Point `HF_ENDPOINT` at it before importing transformers.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


class FakeHub:
    """The repositories, and a server thread that speaks for them.

    Use as a context manager; `endpoint` is the address, `files(repo_id)` the content of a repository's main branch.
    """

    def __init__(self) -> None:
        # Name -> commits, each path -> content. Datasets and Spaces are called as in addresses: datasets/owner/name.
        self.repositories: dict[str, list[dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.large_objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self) -> "FakeHub":
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()

    def files(self, repo_id: str) -> dict[str, bytes]:
        return self.repositories[repo_id][-1]

    def environment(self) -> dict[str, str]:
        """Variables that make a fresh process use this hub and nothing else."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": "hf_stand_in",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }


def commit_name(repo_id: str, number: int) -> str:
    return hashlib.sha1(f"{repo_id}@{number}".encode()).hexdigest()


_NAME = r"(?:datasets/|spaces/)?[^/]+/[^/]+"
_API_NAME = r"(?:models|datasets|spaces)/[^/]+/[^/]+"


def _entries(files: dict[str, bytes]):
    for path, content in sorted(files.items()):
        yield path, {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def answer(self, content=None, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content if content is not None else {}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header(
            "Content-Type", "application/octet-stream" if isinstance(content, bytes) else "application/json"
        )
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, code: str) -> None:
        self.answer({"error": code}, 404, X_Error_Code=code, X_Error_Message=code)

    def body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def commits(self, repo_id: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        history = self.hub.repositories[repo_id]
        names = [commit_name(repo_id, number) for number in range(len(history))]
        if revision == "main":
            return names[-1], history[-1]
        return (revision, history[names.index(revision)]) if revision in names else None

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if path == "/api/whoami-v2":
            return self.answer(
                {"type": "user", "name": "tester", "orgs": [], "auth": {"accessToken": {"role": "write"}}}
            )
        if match := re.fullmatch(rf"/({_NAME})/resolve/([^/]+)/(.+)", path):
            return self.send_file(*match.groups())
        if match := re.fullmatch(rf"/api/({_API_NAME})(?:/(revision|tree|refs)(?:/([^/]+))?(?:/(.*))?)?", path):
            return self.send_information(match[1].removeprefix("models/"), *match.groups()[1:])
        return self.missing("RepoNotFound")

    def send_file(self, repo_id: str, revision: str, name: str) -> None:
        if repo_id not in self.hub.repositories:
            return self.missing("RepoNotFound")
        commit = self.commits(repo_id, revision)
        if commit is None:
            return self.missing("RevisionNotFound")
        if name not in commit[1]:
            return self.answer({}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit[0])
        content = commit[1][name]
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        return self.answer(content, X_Repo_Commit=commit[0], ETag=etag, X_Linked_Size=str(len(content)))

    def send_information(self, repo_id: str, kind: str | None, revision: str | None, folder: str | None) -> None:
        if repo_id not in self.hub.repositories:
            return self.missing("RepoNotFound")
        commit = self.commits(repo_id, revision or "main")
        if commit is None:
            return self.missing("RevisionNotFound")
        name, files = commit
        if kind == "refs":
            return self.answer({"branches": [{"name": "main", "ref": "refs/heads/main", "targetCommit": name}],
                                "converts": [], "tags": []})  # fmt: skip
        if kind == "tree":
            prefix = f"{folder}/" if folder else ""
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in ("true", "1")
            inside = {path: content for path, content in files.items() if path.startswith(prefix)}
            folders = {prefix + path.removeprefix(prefix).split("/")[0] for path in inside} - set(inside)
            return self.answer([
                *({"type": "directory", "path": path, "size": 0, "oid": path} for path in sorted(folders)),
                *(entry for path, entry in _entries(inside) if recursive or "/" not in path.removeprefix(prefix)),
            ])  # fmt: skip
        return self.answer({
            "_id": "0", "id": repo_id, "modelId": repo_id, "sha": name, "private": False, "disabled": False,
            "gated": False, "downloads": 0, "likes": 0, "tags": [], "siblings": [{"rfilename": p} for p in files],
            "createdAt": "2025-01-01T00:00:00.000Z", "lastModified": "2025-01-01T00:00:00.000Z",
        })  # fmt: skip

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"POST {path}")
        body = self.body()
        if path == "/api/repos/create":
            asked = json.loads(body)
            kind = {"dataset": "datasets/", "space": "spaces/"}.get(asked.get("type"), "")
            repo_id = f"{kind}{asked.get('organization') or 'tester'}/{asked['name']}"
            url = {"url": f"{self.hub.endpoint}/{repo_id}", "name": repo_id, "id": repo_id}
            if repo_id in self.hub.repositories:
                return self.answer({**url, "error": "You already created this model repo"}, 409)
            self.hub.repositories[repo_id] = [{".gitattributes": b"*.safetensors filter=lfs\n"}]
            self.hub.private[repo_id] = bool(asked.get("private")) or asked.get("visibility") == "private"
            return self.answer(url)
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if match := re.fullmatch(rf"/{_NAME}\.git/info/lfs/objects/batch", path):
            return self.answer({"transfer": "basic", "objects": [
                {"oid": o["oid"], "size": o["size"], "authenticated": True,
                 "actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{o['oid']}", "header": {}}}}
                for o in json.loads(body)["objects"]
            ]})  # fmt: skip
        if match := re.fullmatch(rf"/api/({_API_NAME})/paths-info/([^/]+)", path):
            commit = self.commits(match[1].removeprefix("models/"), match[2])
            asked = parse_qs(body.decode()) if b"paths=" in body else json.loads(body)
            return self.answer([entry for name, entry in _entries(commit[1]) if name in asked["paths"]])
        if match := re.fullmatch(rf"/api/({_API_NAME})/(preupload|commit)/([^/]+)", path):
            repo_id, action = match[1].removeprefix("models/"), match[2]
            if repo_id not in self.hub.repositories:
                return self.missing("RepoNotFound")
            return self.preupload(body) if action == "preupload" else self.commit(repo_id, body)
        return self.missing("RepoNotFound")

    def preupload(self, body: bytes) -> None:
        large = (".safetensors", ".bin", ".pt", ".parquet")
        self.answer({"files": [
            {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(large) else "regular", "shouldIgnore": False}
            for f in json.loads(body)["files"]
        ]})  # fmt: skip

    def commit(self, repo_id: str, body: bytes) -> None:
        files = dict(self.hub.repositories[repo_id][-1])
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.large_objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                files.pop(value["path"], None)
        self.hub.repositories[repo_id].append(files)
        name = commit_name(repo_id, len(self.hub.repositories[repo_id]) - 1)
        url = f"{self.hub.endpoint}/{repo_id}/commit/{name}"
        self.answer({"success": True, "commitOid": name, "commitUrl": url, "hookOutput": "", "pullRequestUrl": None})

    def do_PUT(self) -> None:
        parts = urlsplit(self.path)
        self.hub.requests.append(f"PUT {parts.path}{parse_qs(parts.query) or ''}")
        content = self.body()
        self.hub.large_objects[hashlib.sha256(content).hexdigest()] = content
        self.answer({})
