"""Tests of gptoss_mlx.server.recall."""

from __future__ import annotations

from typing import Any

from gptoss_mlx.harmony import Message
from gptoss_mlx.server.recall import Recall
from gptoss_mlx.server.responses.facts import all_facts_of, facts_of

IDS = tuple(range(200))


def item(text: str = "Hi", identity: str | None = "msg_1") -> dict[str, Any]:
    """A message."""
    content: list[dict[str, Any]] = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": identity, "role": "assistant", "content": content}


def message(text: str = "Hi", channel: str = "final") -> Message:
    """What it stands for."""
    return Message("assistant", text, channel, ids=IDS)


def test_what_was_kept_is_found_with_its_ids() -> None:
    """By id and content, or by content alone, in parts or in one piece."""
    recall = Recall()
    recall.keep("me", facts_of(item()), [message()])
    for asked in (item(), item(identity=None), {**item(), "content": "Hi"}):
        (found,) = recall.find("me", facts_of(asked))
        assert (found, found.ids) == (message(), IDS)


def test_reasoning_is_known_by_its_id_where_nothing_else_came_back() -> None:
    """Some clients keep no more of it; what has another text, or neither, is not known."""
    recall = Recall()
    parts = [{"type": "reasoning_text", "text": "Hi"}]
    thought: dict[str, Any] = {"type": "reasoning", "id": "rs_1", "content": parts}
    recall.keep("me", all_facts_of(thought), [message(channel="analysis")])
    contents: list[Any] = [[], None]
    for content in contents:
        assert recall.find("me", facts_of({**thought, "content": content}))
    changed = [{"type": "reasoning_text", "text": "Ho"}]
    assert recall.find("me", facts_of({**thought, "content": changed})) == ()
    assert recall.find("me", facts_of({**thought, "content": [], "id": None})) == ()


def test_what_differs_is_not_found() -> None:
    """Another text, another owner, an item that is no message at all."""
    recall = Recall()
    recall.keep("me", facts_of(item()), [message()])
    assert recall.find("me", facts_of(item("Ho"))) == ()
    assert recall.find("you", facts_of(item())) == ()
    assert recall.find("me", facts_of({"type": "news", "id": "msg_1"})) == ()


def test_ids_tell_equal_texts_apart() -> None:
    """A preamble and an answer may say the same; without an id the later one is meant."""
    recall = Recall()
    for identity, channel in (("msg_1", "commentary"), ("msg_2", "final")):
        recall.keep("me", facts_of(item(identity=identity)), [message(channel=channel)])
    found = [recall.find("me", facts_of(item(identity=i)))[0] for i in ("msg_1", "msg_2", None)]
    channels = [message.channel for message in found]
    assert channels == ["commentary", "final", "final"]


def test_calls_that_were_run_go_by_their_ids_only() -> None:
    """A search without an id could be any search."""
    recall = Recall()
    search = {"type": "web_search_call", "id": "ws_1", "action": {"query": "x"}}
    both = [message("{}"), Message("tool", "found", name="browser.search")]
    recall.keep("me", facts_of(search), both)
    assert list(recall.find("me", facts_of({**search, "action": None}))) == both
    assert recall.find("me", facts_of({**search, "id": None})) == ()


def test_it_is_bounded_and_the_latest_used_stays() -> None:
    """What nobody has asked for goes first."""
    recall = Recall(max_tokens=1_500)
    for number in range(3):
        recall.keep("me", facts_of(item(str(number), f"msg_{number}")), [message(str(number))])
        assert recall.find("me", facts_of(item("0", "msg_0")))
    for number in range(3, 10):
        recall.keep("me", facts_of(item(str(number), f"msg_{number}")), [message(str(number))])
        assert recall.find("me", facts_of(item("0", "msg_0")))
    assert not recall.find("me", facts_of(item("1", "msg_1")))
    assert recall.find("me", facts_of(item("9", "msg_9")))


def test_what_is_too_large_alone_is_not_kept() -> None:
    """And takes nothing with it that would have fit."""
    recall = Recall(max_tokens=600)
    recall.keep("me", facts_of(item()), [message()])
    recall.keep("me", facts_of(item("long")), [Message("assistant", "long", ids=IDS * 5)])
    assert recall.find("me", facts_of(item("long"))) == ()
    assert recall.find("me", facts_of(item()))


def test_keeping_again_replaces() -> None:
    """One item is one entry, however often it is kept."""
    recall = Recall(max_tokens=1_000)
    for _ in range(100):
        recall.keep("me", facts_of(item()), [message()])
    assert recall.find("me", facts_of(item()))
