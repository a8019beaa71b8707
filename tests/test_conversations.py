"""Conversations on disk: what is saved comes back, and nothing else is harmed."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from gptoss_mlx.conversations import (
    Conversation,
    ConversationStore,
    data_folder,
    export_json,
    export_markdown,
    load_file,
)
from gptoss_mlx.errors import DiskError, UsageError
from gptoss_mlx.harmony import Message, Setup

SETUP = Setup("high", "Be brief.\nAlways.", date="2026-11-22")
FENCE = "```"
MESSAGES = [
    Message("user", "\n What is the weather\nin 東京? 🌧"),
    Message("assistant", "Ask </details> the tool.", "analysis"),
    Message("assistant", "I look it up.", "commentary"),
    Message(
        "assistant", '{"city": "東京"}', "commentary", "functions.weather", "json", ids=(200006, 7)
    ),
    Message("tool", f"{FENCE}\nrain\n{FENCE}", "commentary", name="functions.weather"),
    Message("assistant", "print(1)", "analysis", "python", "code"),
    Message("tool", "1\n", "commentary", name="python"),
    Message("assistant", "It rains.", "final", ids=(200006, 173781, 5, 200002)),
    Message("user", "Thanks \x1b[31m\ud800"),
]


@pytest.fixture
def store(tmp_path: Path) -> ConversationStore:
    """A store in a folder that is not there yet."""
    return ConversationStore(tmp_path / "data" / "conversations")


def conversation(**changes: Any) -> Conversation:
    """A conversation with everything in it."""
    given: dict[str, Any] = {"setup": SETUP, "tools": ("python",), "messages": list(MESSAGES)}
    return Conversation("gpt-oss-20b", **(given | changes))


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a saved file as somebody with an editor would."""
    data = json.loads(path.read_text("utf-8"))
    change(data)
    path.write_text(json.dumps(data), "utf-8")


def test_what_is_saved_comes_back(store: ConversationStore) -> None:
    """Everything, and the sampled ids too."""
    saved = conversation()
    path = store.save(saved)
    loaded = store.load(saved.id)
    assert loaded == saved
    assert [m.ids for m in loaded.messages] == [m.ids for m in MESSAGES]
    assert path == store.path(saved.id)


def test_ids_and_times_can_be_sorted() -> None:
    """An id tells when, differs from the next, and times have a zone."""
    made = [Conversation("m", SETUP) for _ in range(50)]
    assert len({c.id for c in made}) == 50
    assert all(re.fullmatch(r"\d{8}-\d{6}-[a-z2-9]{4}", c.id) for c in made)
    assert datetime.fromisoformat(made[0].created).tzinfo is not None


def test_a_file_is_for_people(store: ConversationStore) -> None:
    """Indented UTF-8, ids on one line."""
    text = store.save(conversation()).read_text("utf-8")
    assert '\n      "ids": "200006 173781 5 200002"' in text
    assert "東京" in text
    assert '  "version": 1' in text


def test_a_title_is_the_first_line_or_what_was_set(store: ConversationStore) -> None:
    """It is cut, it is printable, and one that was set stays."""
    saved = conversation()
    store.save(saved)
    assert saved.title == "What is the weather"
    long = conversation(messages=[Message("user", "\x1b[2J" + "word " * 40)])
    store.save(long)
    assert len(long.title) <= 60
    assert long.title.startswith("[2Jword")
    named = conversation(title="Mine")
    store.save(named)
    assert store.load(named.id).title == "Mine"


def test_files_are_private_from_the_beginning(
    store: ConversationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is 0700; a file is 0600 while it is written and after."""
    modes: list[int] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    before = os.umask(0)
    try:
        path = store.save(conversation())
    finally:
        os.umask(before)
    assert modes == [0o600]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


def test_the_latest_is_listed_first(store: ConversationStore) -> None:
    """With its number of turns; `last` means it."""
    first, second = conversation(), conversation(messages=[], title="b\x1b[31m")
    for saved in (first, second):
        store.save(saved)
    edited(store.path(first.id), lambda d: d.update(updated="2999-01-01T00:00:00+00:00"))
    edited(store.path(second.id), lambda d: d.update(updated="2999-01-01T00:30:00+01:00"))
    summaries = store.list()
    assert [s.id for s in summaries] == [first.id, second.id]
    assert [s.turns for s in summaries] == [2, 0]
    assert summaries[1].title == "b[31m"
    assert store.load("last").id == first.id


def test_a_beginning_is_enough(store: ConversationStore) -> None:
    """As long as it is the beginning of one id only, or a whole id."""
    for id in ("abc", "abcd", "xyz"):
        store.save(conversation(id=id))
    assert store.load("x").id == "xyz"
    assert store.load("abc").id == "abc"
    with pytest.raises(UsageError, match="abc, abcd"):
        store.load("ab")
    with pytest.raises(UsageError, match="no conversation 'q'"):
        store.load("q")


def test_nothing_is_there_yet(store: ConversationStore) -> None:
    """A folder that does not exist is empty, and stays away until something is saved."""
    assert store.list() == []
    with pytest.raises(UsageError, match="no conversation yet"):
        store.load("last")
    assert not store.folder.exists()


@pytest.mark.parametrize(
    "id", ["", "../x", "/etc/passwd", "a/b", ".hidden", "a\n", "a\0", "-x", "..", "last", "x" * 65]
)
def test_names_stay_in_the_folder(store: ConversationStore, id: str) -> None:
    """Whatever is no id is refused before anything is touched."""
    with pytest.raises(UsageError):
        store.save(conversation(id=id))
    with pytest.raises(UsageError):
        store.delete(id)
    with pytest.raises(UsageError):
        store.load(id)
    assert not store.folder.exists()


def test_delete(store: ConversationStore) -> None:
    """A conversation is gone; a second time there is nothing to delete."""
    saved = conversation()
    store.save(saved)
    store.delete(saved.id)
    assert store.list() == []
    with pytest.raises(UsageError, match="there is no conversation"):
        store.delete(saved.id)


DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "foreign": lambda d: d.pop("format"),
    "newer": lambda d: d.update(version=2),
    "version": lambda d: d.update(version=True),
    "time": lambda d: d.update(updated="yesterday"),
    "zone": lambda d: d.update(created="2026-11-22T04:15:30"),
    "effort": lambda d: d["setup"].update(reasoning="huge"),
    "instructions": lambda d: d["setup"].update(instructions=3),
    "tools": lambda d: d.update(tools=[1]),
    "messages": lambda d: d.update(messages=["hello"]),
    "content": lambda d: d["messages"][0].update(content=None),
    "channel": lambda d: d["messages"][1].update(channel=5),
    "ids": lambda d: d["messages"][3].update(ids="1 -2"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_named_and_left_alone(
    store: ConversationStore, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Loading and saving say which file; the list goes on without it, with a warning."""
    good, bad = conversation(), conversation()
    path = store.save(bad)
    store.save(good)
    edited(path, DAMAGES[damage])
    contents = path.read_bytes()
    for attempt in (lambda: store.load(bad.id), lambda: store.save(bad), lambda: load_file(path)):
        with pytest.raises(UsageError, match=re.escape(str(path))):
            attempt()
    assert path.read_bytes() == contents
    assert [s.id for s in store.list()] == [good.id]
    assert str(path) in caplog.text


@pytest.mark.parametrize("contents", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_what_is_no_json_object_is_refused(store: ConversationStore, contents: bytes) -> None:
    """Whatever the bytes are, it is one clear error."""
    path = store.save(conversation(id="a"))
    path.write_bytes(contents)
    with pytest.raises(UsageError, match="damaged"):
        store.load("a")
    assert store.list() == []


def test_a_newer_file_says_so(store: ConversationStore) -> None:
    """The remedy is an update."""
    path = store.save(conversation(id="a"))
    edited(path, lambda d: d.update(version=9))
    with pytest.raises(UsageError, match=r"format 9\): update"):
        store.load("a")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_harms_nothing(
    store: ConversationStore, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The old file is intact, nothing temporary stays, and the conversation can be saved later."""
    saved = conversation()
    path = store.save(saved)
    contents = path.read_bytes()
    saved.messages.append(Message("user", "more"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), full)
        with pytest.raises(DiskError, match=re.escape(str(path))):
            store.save(saved)
    assert path.read_bytes() == contents
    assert list(store.folder.iterdir()) == [path]
    store.save(saved)
    assert store.load(saved.id) == saved


def test_a_place_that_cannot_be_a_folder(tmp_path: Path) -> None:
    """A file in the way is an error of the disk, when saving and when listing."""
    (tmp_path / "file").write_text("")
    store = ConversationStore(tmp_path / "file" / "conversations")
    with pytest.raises(DiskError):
        store.save(conversation())
    with pytest.raises(DiskError):
        store.list()


def test_what_is_not_ours_is_not_listed(store: ConversationStore) -> None:
    """Pipes, folders and odd names in the folder neither block nor fail the list."""
    saved = conversation()
    store.save(saved)
    os.mkfifo(store.folder / "pipe.json")
    (store.folder / "folder.json").mkdir()
    (store.folder / "..x.json").write_text("{}")
    (store.folder / ".left-over.tmp").write_text("{")
    assert [s.id for s in store.list()] == [saved.id]


def test_the_last_writer_wins(store: ConversationStore) -> None:
    """Many at once: whoever reads finds one whole conversation, and no other file."""
    writers = [conversation(id="a", messages=[Message("user", str(n) * 20_000)]) for n in range(4)]
    store.save(writers[0])

    def write(mine: Conversation) -> None:
        for _ in range(10):
            store.save(mine)

    threads = [threading.Thread(target=write, args=(mine,)) for mine in writers]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        [message] = store.load("a").messages
        assert len(message.content) == 20_000
        assert len(set(message.content)) == 1
    assert [path.name for path in store.folder.iterdir()] == ["a.json"]


def test_ids_do_not_outlive_an_edit(store: ConversationStore) -> None:
    """A text that somebody changed in the file is not what its ids say."""
    path = store.save(conversation(id="a"))
    edited(path, lambda d: d["messages"][7].update(content="It snows."))
    messages = store.load("a").messages
    assert messages[7].content == "It snows."
    assert messages[7].ids is None
    assert messages[3].ids == MESSAGES[3].ids


def test_a_copy_is_another_conversation(store: ConversationStore, tmp_path: Path) -> None:
    """In the folder under its file's name; from elsewhere under a new id."""
    path = store.save(conversation(id="a"))
    (store.folder / "b.json").write_bytes(path.read_bytes())
    assert store.load("b").id == "b"
    elsewhere = path.replace(tmp_path / "elsewhere.json")
    loaded = load_file(elsewhere)
    assert loaded.id not in ("a", "b")
    assert loaded.messages == MESSAGES
    with pytest.raises(UsageError, match="no file"):
        load_file(path)


def test_the_folder_of_the_platform_can_be_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """GPTOSS_MLX_DATA names the folder of everything that a user made."""
    monkeypatch.setenv("GPTOSS_MLX_DATA", str(tmp_path))
    assert ConversationStore().folder == tmp_path / "conversations"
    monkeypatch.setenv("GPTOSS_MLX_DATA", "")
    assert data_folder().name == "gptoss-mlx"


def test_markdown_for_people(store: ConversationStore) -> None:
    """Headings per speaker, fences longer than those within, reasoning only when asked for."""
    saved = conversation()
    store.save(saved)
    text = export_markdown(saved)
    assert text.startswith("# What is the weather\n\ngpt-oss-20b · ")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## User",
        "## Assistant",
        "## User",
    ]
    assert 'Call of functions.weather:\n\n```json\n{"city": "東京"}\n```' in text
    assert "Result of functions.weather:\n\n````text\n```\nrain\n```\n````" in text
    assert "```python\nprint(1)\n```" in text
    assert "<details>" not in text
    reasoned = export_markdown(saved, with_reasoning=True)
    assert "<summary>Reasoning</summary>\n\nAsk &lt;/details> the tool.\n\n</details>" in reasoned


@pytest.mark.parametrize(
    ("content", "end"),
    [("```py\nx", "x\n```"), ("~~~~\n```\n~~~", "~~~\n~~~~"), ("```\nx\n```", "x\n```")],
)
def test_a_fence_that_was_cut_short_is_closed(content: str, end: str) -> None:
    """What follows an interrupted answer is not taken for its code."""
    cut = conversation(messages=[Message("assistant", content, "final"), Message("user", "Go on")])
    assert f"{end}\n\n## User\n\nGo on\n" in export_markdown(cut)


def test_json_for_programs() -> None:
    """The messages of the Chat Completions API, reasoning and calls included."""
    body = json.loads(export_json(conversation()))
    assert body["model"] == "gpt-oss-20b"
    call, python = (
        {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
        for id, name, arguments in (
            ("call_1", "weather", '{"city": "東京"}'),
            ("call_2", "python", "print(1)"),
        )
    )
    assert body["messages"] == [
        {"role": "system", "content": "Be brief.\nAlways."},
        {"role": "user", "content": MESSAGES[0].content},
        {
            "role": "assistant",
            "content": "I look it up.",
            "reasoning": "Ask </details> the tool.",
            "tool_calls": [call],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "```\nrain\n```"},
        {"role": "assistant", "content": None, "tool_calls": [python]},
        {"role": "tool", "tool_call_id": "call_2", "content": "1\n"},
        {"role": "assistant", "content": "It rains."},
        {"role": "user", "content": MESSAGES[8].content},
    ]


def test_parallel_and_unanswered_calls_export() -> None:
    """Calls in a row are one message; results answer them in order, whoever is left over."""
    call = MESSAGES[3]
    result = MESSAGES[4]
    messages = [call, replace(call, content="{}"), result, result, result, call]
    body = json.loads(export_json(conversation(messages=messages, setup=Setup())))["messages"]
    assert [c["id"] for c in body[0]["tool_calls"]] == ["call_1", "call_2"]
    assert [m["tool_call_id"] for m in body[1:4]] == ["call_1", "call_2", "call_3"]
    assert body[4]["tool_calls"][0]["id"] == "call_4"
