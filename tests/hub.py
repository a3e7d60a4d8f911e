"""A Hugging Face hub on 127.0.0.1 that serves folders, and tiny checkpoints to put there.

``test_*`` are timm's own tiny architectures, for example ``test_resnet`` (96-d) and ``test_vit``
(64-d), for images of 160 x 160.
"""

import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from icis.compat import timm

RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
MODEL = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?")
LARGE = (".safetensors", ".bin")


def tiny_checkpoint(
    folder: Path, model: str, hub_name: str, classes: int = 1000, seed: int = 0, **arguments: Any
) -> Path:
    """Write a checkpoint of the architecture ``model`` in ``folder / hub_name``; return that.

    A ``HubServer`` of ``folder`` serves it as ``hub_name`` (ORG/NAME), whatever network one expects
    under that name. ``arguments`` change the architecture and stand in config.json.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = timm.create_model(model, num_classes=classes, **arguments)
        for name, buffer in network.named_buffers():  # as if it had been trained
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
    path = folder / hub_name
    timm.models.save_for_hf(network, path, model_args=arguments, safe_serialization=True)
    return path


class HubServer:
    """Serves ``folder/ORG/NAME/FILE`` as the hub does, at the branch main and at its commit.

    ``with HubServer(folder, cache) as environment`` gives the variables for a process that is to
    use it; the client reads them when it is imported, so it must be a new one. Large files come
    with their SHA-256, as on the hub, but without its redirection to another host.
    """

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        self.requests: list[str] = []
        """Method and path of every request so far."""

    def __enter__(self) -> dict[str, str]:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.hub = self
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        return self.environment

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """Return what the client is to find in its environment."""
        return {
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(self.cache),
            "HF_HUB_CACHE": str(self.cache / "hub"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
        }

    def files(self, repository: str) -> dict[str, Path]:
        """Return a repository's files by their names there."""
        root = self.folder / repository
        found = (path for path in root.rglob("*") if path.is_file())
        return {path.relative_to(root).as_posix(): path for path in sorted(found)}

    def commit(self, repository: str) -> str:
        """Return the commit, which changes with the files."""
        state = hashlib.sha1(repository.encode())
        for name, path in self.files(repository).items():
            state.update(name.encode() + path.read_bytes())
        return state.hexdigest()


class _Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    @property
    def hub(self) -> HubServer:
        return self.server.hub

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        if found := RESOLVE.fullmatch(path):
            self._resolve(*found.groups())
        elif found := MODEL.fullmatch(path):
            self._model(found[1], found[2] or "main")
        else:
            self._send(404, {})

    def _refusal(self, repository: str, revision: str) -> str | None:
        if not self.hub.files(repository):
            return "RepoNotFound"
        known = ("main", self.hub.commit(repository))
        return None if revision in known else "RevisionNotFound"

    def _resolve(self, repository: str, revision: str, name: str) -> None:
        refusal = self._refusal(repository, revision)
        if refusal is not None:
            return self._send(404, {"X-Error-Code": refusal})
        headers = {"X-Repo-Commit": self.hub.commit(repository)}
        path = self.hub.files(repository).get(name)
        if path is None:
            return self._send(404, {**headers, "X-Error-Code": "EntryNotFound"})
        data = path.read_bytes()
        if not name.endswith(LARGE):
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            return self._send(200, {**headers, "ETag": f'"{blob}"'}, data)
        headers |= {"ETag": f'"{_sha256(path)}"', "X-Linked-Etag": f'"{_sha256(path)}"'}
        headers["X-Linked-Size"] = str(len(data))
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked is None:
            return self._send(200, headers, data)
        start = int(asked[1])
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self._send(206, headers, data[start:])

    def _model(self, repository: str, revision: str) -> None:
        refusal = self._refusal(repository, revision)
        if refusal is not None:
            return self._send(404, {"X-Error-Code": refusal})
        names = [{"rfilename": name} for name in self.hub.files(repository)]
        about = {"id": repository, "sha": self.hub.commit(repository), "siblings": names}
        kind = {"Content-Type": "application/json"}
        return self._send(200, kind, json.dumps({**about, "private": False, "tags": []}).encode())

    def _send(self, status: int, headers: dict[str, str], data: bytes = b"") -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
