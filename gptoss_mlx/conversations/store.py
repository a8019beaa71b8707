"""The folder with a file of each conversation. It does not know what is in a file."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from gptoss_mlx.conversations.record import (
    Conversation,
    encoded,
    new_id,
    now,
    one_line,
    read_file,
    time_of,
    title_of,
    write_file,
)
from gptoss_mlx.errors import DiskError, UsageError
from gptoss_mlx.paths import data_folder

__all__ = ["ConversationStore", "Summary", "data_folder", "load_file"]

LATEST = "last"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """A conversation as it stands in a list; the title is one printable line."""

    id: str
    title: str
    updated: str
    turns: int
    model: str


class ConversationStore:
    """The conversations of one folder, by default `conversations` in `data_folder()`.

    The folder is made when something is saved. An id is the name of its file without `.json`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or data_folder() / "conversations"

    def path(self, id: str) -> Path:
        """The file of a conversation, whether it is there or not.

        Raises:
            UsageError: this cannot be an id.
        """
        if not _ID.fullmatch(id) or id == LATEST:
            raise UsageError(f"{id!r} is no conversation's id: see the list for those there are")
        return self.folder / f"{id}.json"

    def save(self, conversation: Conversation) -> Path:
        """Write a conversation, with the time and a title; what was saved before is replaced.

        Raises:
            DiskError: it cannot be written; the old file is as it was.
            UsageError: the file there is none of ours, or damaged, or newer: it is left alone.
        """
        path = self.path(conversation.id)
        title = conversation.title or title_of(conversation.messages)
        updated = now()
        contents = encoded(conversation, title, updated)
        try:
            if path.exists():
                read_file(path)
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_file(path, contents)
        except OSError as error:
            raise DiskError(_unwritable(path, error)) from None
        conversation.title, conversation.updated = title, updated
        return path

    def load(self, name: str) -> Conversation:
        """The conversation with this id, or the only one whose id begins so; `last` is the latest.

        Raises:
            UsageError: there is none, there are several, or the file is damaged.
            DiskError: the file cannot be read.
        """
        id = self._resolved(name)
        conversation = read_file(self.path(id))
        conversation.id = id  # a copy under another name is another conversation
        return conversation

    def list(self) -> list[Summary]:
        """Those that can be read, the latest first; a warning is logged for each other file.

        Raises:
            DiskError: the folder cannot be read.
        """
        found: list[Summary] = []
        for id in self._ids():
            try:
                found.append(_summary(id, read_file(self.path(id))))
            except (UsageError, DiskError) as error:
                _log.warning("left out of the list: %s", error)
        return sorted(found, key=lambda s: (time_of(s.updated), s.id), reverse=True)

    def delete(self, id: str) -> None:
        """Remove a conversation; the id must be whole.

        Raises:
            UsageError: there is none.
            DiskError: it cannot be removed.
        """
        path = self.path(id)
        try:
            path.unlink()
        except FileNotFoundError:
            raise UsageError(f"there is no conversation {id!r}") from None
        except OSError as error:
            raise DiskError(f"{path} cannot be removed: {error.strerror}") from None

    def _ids(self) -> list[str]:
        try:
            names = [entry.name for entry in self.folder.iterdir() if entry.is_file()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DiskError(f"{self.folder} cannot be read: {error.strerror}") from None
        ids = (name.removesuffix(".json") for name in names if name.endswith(".json"))
        return sorted(id for id in ids if _ID.fullmatch(id) and id != LATEST)

    def _resolved(self, name: str) -> str:
        if name == LATEST:
            if summaries := self.list():
                return summaries[0].id
            raise UsageError("there is no conversation yet: begin one")
        self.path(name)  # an id, or the beginning of one
        ids = self._ids()
        matches = [name] if name in ids else [id for id in ids if id.startswith(name)]
        if len(matches) == 1:
            return matches[0]
        if not matches:
            raise UsageError(f"there is no conversation {name!r}")
        raise UsageError(f"{name!r} may mean {', '.join(matches[:5])}: write more of the id")


def load_file(path: Path) -> Conversation:
    """A saved conversation from anywhere, under a new id: saving it replaces no other.

    Raises:
        UsageError: it is not a saved conversation, or damaged, or of a newer version.
        DiskError: it cannot be read.
    """
    conversation = read_file(path)
    conversation.id = new_id()
    return conversation


def _summary(id: str, saved: Conversation) -> Summary:
    title, model = one_line(saved.title), one_line(saved.model)
    return Summary(id, title, saved.updated, saved.turns, model)


def _unwritable(path: Path, error: OSError) -> str:
    return f"{path} cannot be written: {error.strerror}; free space, or set GPTOSS_MLX_DATA"
