"""Stored responses, in memory or in a SQLite file, each readable by its owner only.

Bounded in number, bytes and age; what was used longest ago goes first. An owner is a fingerprint of
an API key: whose key differs is told that there is no such response. A file is one server's. It
knows neither HTTP nor who runs a response in the background: it is given a function that ends that.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from gptoss_mlx.errors import DiskError
from gptoss_mlx.harmony import Message
from gptoss_mlx.server.problems import Problem
from gptoss_mlx.server.responses.reading import History
from gptoss_mlx.server.sealing import message_from_json, message_to_json

__all__ = ["ResponseStore", "StoredResponse"]

RUNNING = ("queued", "in_progress")
_DAY = 86_400.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    owner TEXT NOT NULL, id TEXT NOT NULL, previous TEXT, status TEXT NOT NULL,
    created REAL NOT NULL, used REAL NOT NULL, bytes INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (owner, id)
);
CREATE INDEX IF NOT EXISTS by_use ON responses (used);
CREATE TABLE IF NOT EXISTS items (
    owner TEXT NOT NULL, id TEXT NOT NULL, response TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (owner, id)
);
CREATE INDEX IF NOT EXISTS by_response ON items (owner, response);
"""


@dataclass(frozen=True)
class StoredResponse:
    """A response, what was asked, and what both add to the conversation.

    response: the object that clients get. input_items: with ids, as clients may list them. history:
    the messages of the input and of the output.
    """

    response: dict[str, Any]
    input_items: tuple[dict[str, Any], ...] = ()
    history: History = field(default_factory=History)

    @property
    def id(self) -> str:
        """The response's id."""
        return self.response["id"]

    @property
    def is_running(self) -> bool:
        """Whether it is still worked on."""
        return self.response["status"] in RUNNING


class ResponseStore:
    """Responses by owner and id; may be used by several threads.

    Args:
        path: of a SQLite file, or None to keep them in memory.
        max_count, max_bytes, max_age: bounds; the age in seconds.
        clock: seconds since 1970.

    Raises:
        DiskError: the file cannot be used; later also from every method.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        max_count: int = 1_000,
        max_bytes: int = 256 << 20,
        max_age: float = 30 * _DAY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._max_count, self._max_bytes, self._max_age = max_count, max_bytes, max_age
        self._clock = clock
        self._lock = threading.Lock()
        self._cancels: dict[tuple[str, str], Callable[[], object]] = {}
        try:
            self._db = _open(path)
        except (sqlite3.Error, OSError) as error:
            raise DiskError(
                f"{path}: cannot store responses ({error}): name another file"
            ) from None
        self._fail_running()

    def close(self) -> None:
        """Close the file; also done when the store is forgotten."""
        self._db.close()

    def __del__(self) -> None:
        if hasattr(self, "_db"):
            self.close()

    def put(self, owner: str, stored: StoredResponse) -> bool:
        """Keep a response, new or again; False where it alone is more than may be kept."""
        body = _to_json(stored)
        with self._transaction():
            return self._put(owner, stored, body)

    def get(self, owner: str, identity: str) -> StoredResponse:
        """A response.

        Raises:
            Problem: there is none, or it is somebody else's.
        """
        with self._transaction():
            return self._get(owner, identity)

    def delete(self, owner: str, identity: str) -> dict[str, Any]:
        """Forget a response; one that is worked on is cancelled.

        Raises:
            Problem: there is none.
        """
        with self._transaction():
            self._get(owner, identity)
            self._remove(owner, identity)
        self._stop(owner, identity)
        return {"id": identity, "object": "response.deleted", "deleted": True}

    def history(self, owner: str, identity: str) -> History:
        """All that was said up to the end of a response.

        Raises:
            Problem: it is not there, or one before it is not, or it is not complete yet.
        """
        chain: list[StoredResponse] = []
        with self._transaction():
            following: str | None = identity
            while following is not None:
                chain.append(self._get(owner, following, param="previous_response_id"))
                following = chain[-1].response.get("previous_response_id")
        if chain[0].is_running:
            message = f"the response {identity} is still worked on: wait for it, or cancel it"
            raise Problem(400, message, param="previous_response_id")
        histories = [stored.history for stored in reversed(chain)]
        messages = tuple(message for history in histories for message in history.messages)
        return History(messages, {k: v for history in histories for k, v in history.calls.items()})

    def find_item(self, owner: str, identity: str) -> dict[str, Any] | None:
        """An item that was put into a response, or came out of it, by its id."""
        with self._transaction() as db:
            query = "SELECT body FROM items WHERE owner = ? AND id = ?"
            row = db.execute(query, (owner, identity)).fetchone()
        return json.loads(row[0]) if row else None

    def input_items(
        self,
        owner: str,
        identity: str,
        *,
        order: str = "desc",
        after: str | None = None,
        limit: int = 20,
    ) -> dict[str, Any]:
        """A page of what a response was asked, without what earlier responses were.

        Raises:
            Problem: the response is not there, or the page cannot be.
        """
        if order not in ("asc", "desc"):
            raise Problem(400, "order must be asc or desc", param="order")
        if not 1 <= limit <= 100:
            raise Problem(400, "limit must lie in 1..100", param="limit")
        items = list(self.get(owner, identity).input_items)
        if order == "desc":
            items.reverse()
        start = 0
        if after is not None:
            places = [i for i, item in enumerate(items) if item["id"] == after]
            if not places:
                raise Problem(400, f"there is no item {after!r} in this response", param="after")
            start = places[0] + 1
        page = items[start : start + limit]
        return {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": len(items) > start + limit,
        }

    def started(self, owner: str, stored: StoredResponse, cancel: Callable[[], object]) -> None:
        """A response is worked on in the background; `cancel` ends that, from any thread."""
        self.put(owner, stored)
        with self._lock:
            self._cancels[owner, stored.id] = cancel

    def finished(self, owner: str, stored: StoredResponse) -> None:
        """It is worked on no more. One that was cancelled stays so, one deleted stays away."""
        with self._lock:
            self._cancels.pop((owner, stored.id), None)
        self.progressed(owner, stored)

    def progressed(self, owner: str, stored: StoredResponse) -> None:
        """This is what has come of it by now; of one cancelled or deleted as `finished` does."""
        with self._transaction(), suppress(Problem):
            if self._get(owner, stored.id).response["status"] == "cancelled":
                stored = _with_status(stored, "cancelled")
            self._put(owner, stored, _to_json(stored))

    def cancel(self, owner: str, identity: str) -> StoredResponse:
        """End a response that runs in the background; one that has ended stays as it is.

        Raises:
            Problem: there is none, or it does not run in the background.
        """
        with self._transaction():
            stored = self._get(owner, identity)
            if not stored.response.get("background"):
                message = "only a response that was created with background can be cancelled"
                raise Problem(400, message)
            if stored.is_running:
                stored = _with_status(stored, "cancelled")
                self._put(owner, stored, _to_json(stored))
        self._stop(owner, identity)
        return stored

    def _stop(self, owner: str, identity: str) -> None:
        with self._lock:
            cancel = self._cancels.pop((owner, identity), None)
        if cancel is not None:
            cancel()

    def _get(self, owner: str, identity: str, param: str | None = None) -> StoredResponse:
        query = "UPDATE responses SET used = ? WHERE owner = ? AND id = ? AND created > ?"
        now = self._clock()
        self._db.execute(query, (now, owner, identity, now - self._max_age))
        query = "SELECT body FROM responses WHERE owner = ? AND id = ? AND created > ?"
        row = self._db.execute(query, (owner, identity, now - self._max_age)).fetchone()
        if row is None:
            code = "previous_response_not_found" if param else None
            message = f"there is no response {identity!r} (any more)"
            raise Problem(404, message, param=param, code=code)
        return _from_json(row[0])

    def _put(self, owner: str, stored: StoredResponse, body: str) -> bool:
        self._remove(owner, stored.id)
        outputs = (item for item in stored.response["output"] if item.get("id"))
        items = {item["id"]: json.dumps(item) for item in (*stored.input_items, *outputs)}
        size = len(body) + sum(len(text) for text in items.values())
        if size > self._max_bytes or not self._max_count:
            return False
        response, now = stored.response, self._clock()
        created = float(response["created_at"])
        previous = response.get("previous_response_id")
        row = (owner, stored.id, previous, response["status"], created, now, size, body)
        self._db.execute("INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        rows = [(owner, identity, stored.id, text) for identity, text in items.items()]
        self._db.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)", rows)
        self._evict()
        return True

    def _evict(self) -> None:
        """Forget what is too old, and of the rest what was used longest ago."""
        old = "SELECT owner, id FROM responses WHERE created <= ?"
        for owner, identity in self._db.execute(old, (self._clock() - self._max_age,)).fetchall():
            self._remove(owner, identity)
        count, size = self._db.execute("SELECT COUNT(*), SUM(bytes) FROM responses").fetchone()
        oldest = "SELECT owner, id, bytes FROM responses WHERE status NOT IN (?, ?) ORDER BY used"
        for owner, identity, num_bytes in self._db.execute(oldest, RUNNING).fetchall():
            if count <= self._max_count and size <= self._max_bytes:
                return
            self._remove(owner, identity)
            count, size = count - 1, size - num_bytes

    def _remove(self, owner: str, identity: str) -> None:
        self._db.execute("DELETE FROM items WHERE owner = ? AND response = ?", (owner, identity))
        self._db.execute("DELETE FROM responses WHERE owner = ? AND id = ?", (owner, identity))

    def _fail_running(self) -> None:
        """What was worked on when the server ended, will not be completed."""
        with self._transaction() as db:
            query = "SELECT owner, body FROM responses WHERE status IN (?, ?)"
            for owner, body in db.execute(query, RUNNING).fetchall():
                stored = _with_status(_from_json(body), "failed")
                error = {"code": "server_error", "message": "the server was stopped meanwhile"}
                stored.response["error"] = error
                self._put(owner, stored, _to_json(stored))

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        try:
            with self._lock, self._db:
                yield self._db
        except sqlite3.Error as error:
            raise DiskError(f"stored responses cannot be read or written ({error})") from None


def _open(path: Path | None) -> sqlite3.Connection:
    db = sqlite3.connect(path or ":memory:", check_same_thread=False)
    try:
        if path is not None:
            path.chmod(0o600)  # it holds what people said
        db.executescript(_SCHEMA)
    except (sqlite3.Error, OSError):
        db.close()
        raise
    return db


def _with_status(stored: StoredResponse, status: str) -> StoredResponse:
    return replace(stored, response={**stored.response, "status": status})


def _to_json(stored: StoredResponse) -> str:
    messages = list(stored.history.messages)
    places = {id(message): i for i, message in enumerate(messages)}
    calls = {key: places[id(m)] for key, m in stored.history.calls.items() if id(m) in places}
    return json.dumps(
        {
            "response": stored.response,
            "input_items": stored.input_items,
            "messages": [message_to_json(message) for message in messages],
            "calls": calls,
        }
    )


def _from_json(text: str) -> StoredResponse:
    body = cast("dict[str, Any]", json.loads(text))
    places = cast("dict[str, int]", body["calls"])
    messages: list[Message] = [message_from_json(fields) for fields in body["messages"]]
    calls = {key: messages[place] for key, place in places.items()}
    return StoredResponse(
        body["response"], tuple(body["input_items"]), History(tuple(messages), calls)
    )
