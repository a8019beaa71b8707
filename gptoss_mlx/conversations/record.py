"""What is kept of a conversation, and the JSON file that keeps it.

Files are written whole or not at all, for this user's eyes only. It does not know where they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast, get_args

from gptoss_mlx.errors import DiskError, UsageError
from gptoss_mlx.harmony import ROLES, Effort, Message, Setup

__all__ = [
    "Conversation",
    "encoded",
    "new_id",
    "now",
    "one_line",
    "read_file",
    "readable_json",
    "time_of",
    "title_of",
    "write_file",
]

FORMAT = "gptoss-mlx conversation"
VERSION = 1
TITLE_LENGTH = 60
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # without what looks alike
_TEXTS = ("channel", "recipient", "content_type", "name")


def new_id() -> str:
    """An id that nobody else has: the time in UTC, and four letters that chance chose."""
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(4))
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{letters}"


def now() -> str:
    """The time, ISO 8601 with this place's zone."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


@dataclass
class Conversation:
    """What is kept of a conversation.

    `id` begins with the time in UTC; `created` and `updated` are ISO 8601 with a zone. An empty
    `title` becomes the first line of the first message when the conversation is saved. Of `setup`
    the effort, the instructions and the date are kept: `tools` names what described the rest.
    `shown` is, by a message's index, what its reader saw instead of its content: citations as
    links.
    """

    model: str
    setup: Setup = field(default_factory=Setup)
    tools: tuple[str, ...] = ()
    messages: list[Message] = field(default_factory=list[Message])
    shown: dict[int, str] = field(default_factory=dict[int, str])
    title: str = ""
    id: str = field(default_factory=new_id)
    created: str = field(default_factory=now)
    updated: str = field(default_factory=now)

    @property
    def turns(self) -> int:
        """How often the user has spoken."""
        return sum(message.role == "user" for message in self.messages)


def encoded(conversation: Conversation, title: str, updated: str) -> bytes:
    """The file of a conversation, with this title and time in it."""
    setup, shown = conversation.setup, conversation.shown
    data = {
        "format": FORMAT,
        "version": VERSION,
        "id": conversation.id,
        "title": title,
        "created": conversation.created,
        "updated": updated,
        "model": conversation.model,
        "setup": {
            "reasoning": setup.reasoning,
            "instructions": setup.instructions,
            "date": setup.date,
        },
        "tools": list(conversation.tools),
        "messages": [
            _packed(message) | ({"shown": shown[i]} if i in shown else {})
            for i, message in enumerate(conversation.messages)
        ],
    }
    return readable_json(data).encode()


def readable_json(data: object) -> str:
    """Readable JSON; halves of surrogate pairs, which UTF-8 cannot hold, are escaped."""
    text = json.dumps(data, ensure_ascii=False, indent=2) + "\n"
    return re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _packed(message: Message) -> dict[str, str]:
    """A message as it stands in the file.

    `ids_of` is a digest of what the ids say: when a text is edited by hand they are not used.
    """
    packed = {"role": message.role}
    packed |= {name: text for name in _TEXTS if (text := getattr(message, name)) is not None}
    packed["content"] = message.content
    if message.ids is not None:
        packed["ids"] = " ".join(map(str, message.ids))
        packed["ids_of"] = _digest(packed)
    return packed


def _digest(packed: dict[str, Any]) -> str:
    said = json.dumps([packed.get(name) for name in ("role", "content", *_TEXTS)])
    return hashlib.sha256(said.encode()).hexdigest()[:12]


def _unpacked(packed: dict[str, Any]) -> Message:
    texts = {name: _take(packed, name, str) for name in _TEXTS if packed.get(name) is not None}
    ids = _take(packed, "ids", str) if "ids" in packed else None
    if ids is not None and not re.fullmatch(r"[0-9]{1,6}(?: [0-9]{1,6})*|", ids):
        raise ValueError("'ids' are not token ids")
    if packed.get("role") not in ROLES:
        raise ValueError("'role' is none that a message can have")
    if packed["role"] == "tool" and not packed.get("name"):
        raise ValueError("a tool's message has no 'name'")
    is_theirs = ids is not None and packed.get("ids_of") == _digest(packed)
    return Message(
        _take(packed, "role", str),
        _take(packed, "content", str),
        **texts,
        ids=tuple(map(int, ids.split())) if ids is not None and is_theirs else None,
    )


def read_file(path: Path) -> Conversation:
    """The conversation in a file.

    Raises:
        UsageError: it is not a saved conversation, or damaged, or of a newer version.
        DiskError: it cannot be read.
    """
    try:
        data: Any = json.loads(path.read_bytes())
        if not isinstance(data, dict) or cast("Any", data).get("format") != FORMAT:
            raise ValueError(f"it does not say that it is a {FORMAT}")
        return _decoded(cast("dict[str, Any]", data), path)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} is not a saved conversation, or damaged: {error}; move it away, or mend it"
        ) from None
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except OSError as error:
        raise DiskError(f"{path} cannot be read: {error.strerror}") from None


def _decoded(data: dict[str, Any], path: Path) -> Conversation:
    if _take(data, "version", int) > VERSION:
        raise UsageError(
            f"{path} was written by a newer gptoss-mlx (format {data['version']}): update this one"
        )
    setup = _take(data, "setup", dict)
    if setup.get("reasoning") not in get_args(Effort):
        raise ValueError("'reasoning' is none of low, medium and high")
    texts = {name: _take(setup, name, str, type(None)) for name in ("instructions", "date")}
    for name in ("created", "updated"):
        if time_of(_take(data, name, str)).tzinfo is None:
            raise ValueError(f"{name!r} has no time zone")
    messages = _each(data, "messages", dict)
    shown = {i: _take(m, "shown", str) for i, m in enumerate(messages) if "shown" in m}
    return Conversation(
        id=_take(data, "id", str),
        title=_take(data, "title", str),
        created=data["created"],
        updated=data["updated"],
        model=_take(data, "model", str),
        setup=Setup(setup["reasoning"], **texts),
        tools=tuple(_each(data, "tools", str)),
        messages=[_unpacked(packed) for packed in messages],
        shown=shown,
    )


def _take(data: dict[str, Any], name: str, *kinds: type) -> Any:
    value = data.get(name)
    if type(value) not in kinds:  # bool is no int here
        raise ValueError(f"{name!r} is missing, or of a wrong type")
    return value


def _each(data: dict[str, Any], name: str, kind: type) -> list[Any]:
    values = _take(data, name, list)
    if any(type(value) is not kind for value in values):
        raise ValueError(f"{name!r} has something of a wrong type in it")
    return values


def write_file(path: Path, contents: bytes) -> None:
    """Write a file that is there whole or not at all; nobody else may read it at any time."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def time_of(text: str) -> datetime:
    """The time that a text in ISO 8601 tells."""
    return datetime.fromisoformat(text)


def title_of(messages: list[Message]) -> str:
    """The first line of the first message, shortened."""
    text = next((m.content for m in messages if m.role == "user"), "")
    line = next((line for line in text.splitlines() if one_line(line)), "")
    title = one_line(line)
    return title if len(title) <= TITLE_LENGTH else title[: TITLE_LENGTH - 1].rstrip() + "…"


def one_line(text: str) -> str:
    """The text as one line, without what does not print."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())
