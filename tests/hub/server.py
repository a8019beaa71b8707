"""A server that speaks the Hub's protocol, and fails in the ways that the Hub and networks do.

Metadata and small files come from it under 127.0.0.1; what lies in LFS is elsewhere, as at the Hub:
its address redirects to another host, `localhost`, which serves ranges.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import mmap
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

__all__ = ["COMMIT", "Big", "FakeHub", "Faults", "Repository", "running"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_LFS = (".safetensors", "tokenizer.json", ".bin")
_BLOCK = 64 << 10


@dataclass
class Repository:
    """Files by name, at one commit."""

    files: Mapping[str, bytes | Big]
    commit: str = COMMIT
    tags: tuple[str, ...] = ()

    @property
    def siblings(self) -> list[dict[str, Any]]:
        """As the Hub describes them."""
        return [self._sibling(name, data) for name, data in self.files.items()]

    def _sibling(self, name: str, data: bytes | Big) -> dict[str, Any]:
        described: dict[str, Any] = {"rfilename": name, "size": len(data)}
        if name.endswith(_LFS):
            lfs = {"size": len(data), "sha256": sha256(data), "pointerSize": 134}
            return {**described, "lfs": lfs, "blobId": "1" * 40}
        return {**described, "blobId": git_sha1(data)}


@dataclass
class Faults:
    """What goes wrong, for the next requests of weights; api_statuses: of metadata.

    statuses: answered instead, one after the other. corrupt: so many times the bytes are wrong.
    cut: the connection is cut after so many bytes, once each. stall: after so many bytes nothing
    more comes. no_ranges: all of a file is sent, whatever was asked for. login_page: so often one
    is the answer. pause: seconds before each block.
    """

    statuses: list[int] = field(default_factory=list[int])
    api_statuses: list[int] = field(default_factory=list[int])
    corrupt: int = 0
    cut: list[int] = field(default_factory=list[int])
    stall: int | None = None
    no_ranges: bool = False
    login_page: int = 0
    pause: float = 0


class FakeHub:
    """The server's state: what it has, what goes wrong, and what it saw."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults = Faults()
        self.gated: set[str] = set()
        self.token: str | None = None
        self.served: Counter[str] = Counter()  # bytes of large files, by name
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.port = 0

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def app(self) -> Starlette:
        """The routes."""
        routes = [
            Route("/api/models/{owner}/{name}/revision/{revision:path}", self._info),
            Route("/{owner}/{name}/resolve/{revision}/{path:path}", self._resolve),
            Route("/lfs/{owner}/{name}/{path:path}", self._large),
        ]
        return Starlette(routes=routes)

    def _saw(self, request: Request) -> None:
        self.requests.append((request.method, request.url.path, dict(request.headers)))

    def _found(self, request: Request) -> Repository | Response:
        """The repository that is asked for, or why it is not given."""
        repo = "{owner}/{name}".format(**request.path_params)
        revision = request.path_params["revision"]
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if given and given != self.token:
            headers = {"X-Error-Message": "Invalid credentials in Authorization header"}
            return Response(status_code=401, headers=headers)
        found = self.repositories.get(repo)
        if found is None:
            return Response(status_code=404, headers={"X-Error-Code": "RepoNotFound"})
        if revision not in ("main", found.commit):
            return Response(status_code=404, headers={"X-Error-Code": "RevisionNotFound"})
        return found

    def _login_page(self) -> Response:
        self.faults.login_page -= 1
        return HTMLResponse("<html>Welcome to our hotel</html>")

    async def _info(self, request: Request) -> Response:
        self._saw(request)
        if self.faults.login_page:
            return self._login_page()
        if self.faults.api_statuses:
            return Response(status_code=self.faults.api_statuses.pop(0))
        found = self._found(request)
        if isinstance(found, Response):
            return found
        repo = "{owner}/{name}".format(**request.path_params)
        return JSONResponse(
            {"id": repo, "sha": found.commit, "tags": found.tags, "siblings": found.siblings}
        )

    async def _resolve(self, request: Request) -> Response:
        self._saw(request)
        found = self._found(request)
        if isinstance(found, Response):
            return found
        repo, path = "{owner}/{name}".format(**request.path_params), request.path_params["path"]
        if repo in self.gated and "authorization" not in request.headers:
            return Response(status_code=403, headers={"X-Error-Code": "GatedRepo"})
        data = found.files.get(path)
        if data is None:
            return Response(status_code=404, headers={"X-Error-Code": "EntryNotFound"})
        headers = {"X-Repo-Commit": found.commit}
        if not path.endswith(_LFS):
            return Response(bytes(data), headers={**headers, "ETag": f'"{git_sha1(data)}"'})
        linked = {
            "X-Linked-Etag": f'"{sha256(data)}"',
            "X-Linked-Size": str(len(data)),
            "X-Xet-Hash": "f" * 64,  # it could be had from there, too; but nobody serves that here
            "X-Xet-Refresh-Route": f"{self.url}/no-xet",
        }
        where = f"http://localhost:{self.port}/lfs/{repo}/{path}"
        return RedirectResponse(where, 302, headers={**headers, **linked})

    async def _large(self, request: Request) -> Response:
        self._saw(request)
        path = request.path_params["path"]
        faults = self.faults if path.endswith(".safetensors") else Faults()
        if faults.login_page:
            return self._login_page()
        if faults.statuses:
            return Response(status_code=faults.statuses.pop(0))
        data = self.repositories["{owner}/{name}".format(**request.path_params)].files[path]
        asked = request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
        start = 0 if faults.no_ranges else int(asked[0])
        if faults.corrupt:
            faults.corrupt -= 1
            data = bytes([data[0] ^ 1]) + data[1:]  # not of Big ones: this copies
        headers = {"Content-Length": str(len(data) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body = self._blocks(path, memoryview(data)[start:], faults)
        return StreamingResponse(body, 206 if start else 200, headers=headers)

    async def _blocks(self, path: str, data: memoryview, faults: Faults) -> AsyncIterator[bytes]:
        cut = faults.cut.pop(0) if faults.cut else len(data)
        for begin in range(0, len(data), _BLOCK):
            if faults.stall is not None and begin >= faults.stall:
                await asyncio.sleep(3600)
            if begin >= cut:
                raise ConnectionError("cut, as was wanted")
            await asyncio.sleep(faults.pause)
            block = bytes(data[begin : begin + _BLOCK])
            self.served[path] += len(block)
            yield block


@contextmanager
def running() -> Generator[FakeHub]:
    """A server of its own, on a free port, until the block ends."""
    hub = FakeHub()
    config = uvicorn.Config(
        hub.app(), port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=0
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    hub.port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield hub
    finally:
        server.should_exit = True
        thread.join(10)


class Big(mmap.mmap):
    """The bytes of a file that memory cannot hold; hashed once."""

    @functools.cached_property
    def sha256(self) -> str:
        """Of all of it."""
        return hashlib.sha256(self).hexdigest()


def sha256(data: bytes | Big) -> str:
    """As LFS names contents."""
    return data.sha256 if isinstance(data, Big) else hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes | Big) -> str:
    """As git names contents."""
    header = f"blob {len(data)}\0".encode()
    return hashlib.sha1(header + bytes(data), usedforsecurity=False).hexdigest()
