"""Hubs on loopback that speak just enough of Hugging Face's and ModelScope's HTTP for a download."""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

#: Seconds a stalled answer is held at most, so that no test can hang on it.
STALL_SECONDS = 30

#: The commit that the Hugging Face hub names for its main branch.
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    """A model on a hub, and what is wrong with it."""

    files: dict[str, bytes]
    claimed_sizes: dict[str, int] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    is_gated: bool = False
    #: Bytes of a file after which the connection is closed, once; or after which nothing more comes, once.
    cut_after: dict[str, int] = field(default_factory=dict)
    stall_after: dict[str, int] = field(default_factory=dict)

    def size(self, path: str) -> int:
        return self.claimed_sizes.get(path, len(self.files[path]))

    def sha256(self, path: str) -> str:
        return hashlib.sha256(self.files[path] + (b"!" if path in self.damaged else b"")).hexdigest()


class LoopbackHub:
    """An HTTP server in a thread; `fetched` keeps (path, first byte asked for) of every file asked for."""

    #: The variable by which the hub's library finds its server.
    endpoint_variable: str
    handler: type["_Handler"]

    def __init__(self, repositories: dict[str, Repository]) -> None:
        self.repositories = repositories
        self.fetched: list[tuple[str, int]] = []
        self.revisions: set[str] = set()
        self.leaving = threading.Event()
        handler = type("Handler", (self.handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="hub")
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self) -> None:
        if self._thread.is_alive():
            self.leaving.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(timeout=5)


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub

    def log_message(self, *_):
        pass

    def send_json(self, status, body, **headers):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_file(self, repository, path):
        content = repository.files[path]
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        self.hub.fetched.append((path, start))
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{repository.sha256(path)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        cut = repository.cut_after.pop(path, None)
        stall = repository.stall_after.pop(path, None)
        end = min(size for size in (cut, stall, len(content)) if size is not None)
        self.wfile.write(content[start:end])
        self.wfile.flush()
        if stall is not None:
            self.hub.leaving.wait(STALL_SECONDS)
        self.close_connection = True


class _HuggingFaceHandler(_Handler):
    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        if listing := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self.send_listing(*listing.groups())
        elif file := re.fullmatch(rf"/([^/]+/[^/]+)/resolve/{COMMIT}/(.+)", path):
            repository = self.hub.repositories[file[1]]
            if repository.is_gated:
                self.send_json(401, {"error": "gated"}, X_Error_Code="GatedRepo")
            else:
                self.send_file(repository, file[2])
        else:
            self.send_json(404, {"error": f"unexpected {path}"})

    def send_listing(self, name, revision):
        repository = self.hub.repositories.get(name)
        if repository is None:
            self.send_json(401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        elif revision not in (None, "main", *self.hub.revisions):
            self.send_json(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        else:
            siblings = [self.describe(repository, path) for path in repository.files]
            self.send_json(200, {"id": name, "sha": COMMIT, "siblings": siblings})

    def describe(self, repository, path):
        lfs = {"size": repository.size(path), "sha256": repository.sha256(path), "pointerSize": 134}
        described = {"rfilename": path, "size": repository.size(path), "blobId": "ab" * 20}
        return described | ({"lfs": lfs} if path.endswith(".safetensors") else {})


class HuggingFaceHub(LoopbackHub):
    source = "huggingface"
    endpoint_variable = "HF_ENDPOINT"
    handler = _HuggingFaceHandler


class _ModelScopeHandler(_Handler):
    def do_GET(self):
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        route = re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo(/files)?", unquote(url.path))
        repository = self.hub.repositories.get(route[1]) if route else None
        if repository is None or asked.get("Revision") not in ("master", *self.hub.revisions):
            self.send_json(404, {"Code": 10010205001, "Message": "not found", "Success": False})
        elif repository.is_gated:
            self.send_json(403, {"Code": 10010201403, "Message": "no access", "Success": False})
        elif route[2]:
            files = [self.describe(repository, path) for path in repository.files]
            self.send_json(200, {"Code": 200, "Data": {"Files": files}, "Success": True})
        else:
            self.send_file(repository, asked["FilePath"])

    def describe(self, repository, path):
        digest = repository.sha256(path)
        return {"Path": path, "Name": path, "Type": "blob", "Size": repository.size(path), "Sha256": digest}


class ModelScopeHub(LoopbackHub):
    source = "modelscope"
    endpoint_variable = "MODELSCOPE_ENDPOINT"
    handler = _ModelScopeHandler
