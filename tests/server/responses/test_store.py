"""Tests of gptoss_mlx.server.responses.store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gptoss_mlx.errors import DiskError
from gptoss_mlx.harmony import Message
from gptoss_mlx.server.problems import Problem
from gptoss_mlx.server.responses.reading import History
from gptoss_mlx.server.responses.store import ResponseStore, StoredResponse

Make = Callable[..., ResponseStore]
IDS = (200_006, 17, 200_007)


class Clock:
    """A time that tests set."""

    now = 1_000.0

    def __call__(self) -> float:
        """That time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """At the beginning."""
    return Clock()


@pytest.fixture(params=["memory", "file"])
def make(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Make]:
    """Makes stores in memory, or in one file."""
    path = tmp_path / "responses.db" if request.param == "file" else None
    stores: list[ResponseStore] = []

    def made(**bounds: Any) -> ResponseStore:
        stores.append(ResponseStore(path, clock=clock, **bounds))
        return stores[-1]

    yield made
    for store in stores:
        store.close()


def stored(
    name: str,
    previous: str | None = None,
    status: str = "completed",
    created: float = 1_000.0,
    *,
    background: bool = False,
) -> StoredResponse:
    """A response that was asked `name`, and called a function."""
    call = Message("assistant", name, "commentary", "functions.f", ids=IDS)
    output = [{"id": f"fc_{name}", "type": "function_call", "call_id": f"call_{name}"}]
    response = {
        "id": name,
        "status": status,
        "created_at": created,
        "previous_response_id": previous,
        "background": background,
        "output": output,
    }
    items = tuple({"id": f"msg_{name}_{i}", "type": "message"} for i in range(5))
    history = History((Message("user", name), call), {f"call_{name}": call})
    return StoredResponse(response, items, history)


def test_what_was_put_is_had_again(make: Make) -> None:
    """The response, its input, and its messages with their ids."""
    store = make()
    assert store.put("me", stored("a"))
    found = store.get("me", "a")
    assert found == stored("a")
    assert found.history.messages[1].ids == IDS
    assert found.history.calls["call_a"] is found.history.messages[1]
    assert store.find_item("me", "fc_a") == stored("a").response["output"][0]
    assert store.find_item("me", "msg_a_0") == {"id": "msg_a_0", "type": "message"}


def test_others_are_told_that_there_is_nothing(make: Make) -> None:
    """Whatever they try: the message is the one for ids that never were."""
    store = make()
    store.put("me", stored("a", background=True))
    attempts: list[Callable[[str], object]] = [
        lambda name: store.get("you", name),
        lambda name: store.delete("you", name),
        lambda name: store.cancel("you", name),
        lambda name: store.input_items("you", name),
        lambda name: store.history("you", name),
    ]
    for attempt in attempts:
        messages: list[str] = []
        for name in ("a", "b"):
            with pytest.raises(Problem) as caught:
                attempt(name)
            messages.append(caught.value.message.replace(f"'{name}'", ""))
        assert messages[0] == messages[1]
    assert store.find_item("you", "fc_a") is None
    assert store.get("me", "a") == stored("a", background=True)


def test_two_owners_may_have_one_id(make: Make) -> None:
    """Each has their own, and deletes their own."""
    store = make()
    store.put("me", stored("a"))
    store.put("you", stored("a", status="failed"))
    store.delete("you", "a")
    assert store.get("me", "a").response["status"] == "completed"
    assert store.find_item("me", "fc_a") is not None


def test_delete(make: Make) -> None:
    """Then it is not there, and neither are its items."""
    store = make()
    store.put("me", stored("a"))
    assert store.delete("me", "a") == {"id": "a", "object": "response.deleted", "deleted": True}
    with pytest.raises(Problem) as caught:
        store.get("me", "a")
    assert caught.value.status == 404
    assert store.find_item("me", "fc_a") is None


def test_a_history_is_the_whole_chain(make: Make) -> None:
    """Oldest first, with the calls of all; not without what came before."""
    store = make()
    for name, previous in (("a", None), ("b", "a"), ("c", "b")):
        store.put("me", stored(name, previous))
    history = store.history("me", "c")
    assert [m.content for m in history.messages] == ["a", "a", "b", "b", "c", "c"]
    assert set(history.calls) == {"call_a", "call_b", "call_c"}
    store.delete("me", "a")
    with pytest.raises(Problem) as caught:
        store.history("me", "c")
    assert caught.value.code == "previous_response_not_found"
    assert "'a'" in caught.value.message


def test_what_runs_cannot_be_continued(make: Make) -> None:
    """Its answer is not there yet."""
    store = make()
    store.put("me", stored("a", status="in_progress"))
    with pytest.raises(Problem, match="still worked on"):
        store.history("me", "a")


def test_the_number_is_bounded(make: Make, clock: Clock) -> None:
    """What was used longest ago goes; to continue a conversation is to use all of it."""
    store = make(max_count=3)
    for name, previous in (("a", None), ("b", "a"), ("c", None)):
        clock.now += 1
        store.put("me", stored(name, previous))
    clock.now += 1
    store.history("me", "b")
    store.put("you", stored("d"))
    assert [has(store, "me", name) for name in "abc"] == [True, True, False]
    assert has(store, "you", "d")


def test_the_bytes_are_bounded(make: Make, clock: Clock) -> None:
    """Old ones go for new ones; one that is too large goes nowhere."""
    store = make(max_bytes=3_000)
    for name in "abcdefgh":
        clock.now += 1
        store.put("me", stored(name))
    kept = [name for name in "abcdefgh" if has(store, "me", name)]
    assert kept
    assert kept == list("abcdefgh")[-len(kept) :]
    assert len(kept) < 8
    large = stored("large")
    large.response["output"].append({"id": "x", "text": "x" * 3_000})
    assert not store.put("me", large)
    assert not has(store, "me", "large")
    assert has(store, "me", "h")


def test_the_age_is_bounded(make: Make, clock: Clock) -> None:
    """However often it is used."""
    store = make(max_age=100)
    store.put("me", stored("a"))
    clock.now += 99
    assert has(store, "me", "a")
    clock.now += 1
    assert not has(store, "me", "a")
    store.put("me", stored("b", created=clock.now))
    assert store.find_item("me", "fc_a") is None


def test_what_runs_is_not_forgotten(make: Make, clock: Clock) -> None:
    """Somebody will ask for it."""
    store = make(max_count=2)
    for name, status in (("a", "queued"), ("b", "completed"), ("c", "completed")):
        clock.now += 1
        store.put("me", stored(name, status=status))
    assert [has(store, "me", name) for name in "abc"] == [True, False, True]


def has(store: ResponseStore, owner: str, name: str) -> bool:
    """Whether a response is there."""
    try:
        store.get(owner, name)
    except Problem:
        return False
    return True


def test_cancel(make: Make) -> None:
    """It ends what runs, once; what comes of it late changes the output, not the status."""
    store, cancelled = make(), list[str]()
    running = stored("a", status="in_progress", background=True)
    store.started("me", running, lambda: cancelled.append("a"))
    assert store.cancel("me", "a").response["status"] == "cancelled"
    assert store.cancel("me", "a").response["status"] == "cancelled"
    assert cancelled == ["a"]
    late = stored("a", background=True)
    late.response["output"].append({"id": "msg"})
    store.finished("me", late)
    assert store.get("me", "a").response["status"] == "cancelled"
    assert len(store.get("me", "a").response["output"]) == 2


def test_finished_responses_stay_as_they_are(make: Make) -> None:
    """To cancel them changes nothing, and those that never ran in the background cannot be."""
    store = make()
    store.started("me", stored("a", status="queued", background=True), pytest.fail)
    store.finished("me", stored("a", background=True))
    assert store.cancel("me", "a").response["status"] == "completed"
    store.put("me", stored("b"))
    with pytest.raises(Problem, match="background"):
        store.cancel("me", "b")


def test_deleted_while_it_runs(make: Make) -> None:
    """It is cancelled, and does not come back when it ends."""
    store, cancelled = make(), list[str]()
    running = stored("a", status="in_progress", background=True)
    store.started("me", running, lambda: cancelled.append("a"))
    store.delete("me", "a")
    store.finished("me", stored("a", background=True))
    assert cancelled == ["a"]
    assert not has(store, "me", "a")


def test_pages_of_input_items(make: Make) -> None:
    """Latest first by default; pages follow each other by the last id."""
    store = make()
    store.put("me", stored("a"))
    names = [f"msg_a_{i}" for i in range(5)]
    seen: list[str] = []
    after = None
    for size, has_more in ((2, True), (2, True), (1, False)):
        page = store.input_items("me", "a", order="asc", after=after, limit=2)
        ids = [item["id"] for item in page["data"]]
        assert (len(ids), page["has_more"]) == (size, has_more)
        assert (page["object"], page["first_id"], page["last_id"]) == ("list", ids[0], ids[-1])
        after = page["last_id"]
        seen += ids
    assert seen == names
    assert [item["id"] for item in store.input_items("me", "a")["data"]] == names[::-1]
    last = store.input_items("me", "a", after="msg_a_0")
    assert (last["data"], last["first_id"], last["has_more"]) == ([], None, False)


@pytest.mark.parametrize("wrong", [{"order": "up"}, {"limit": 0}, {"limit": 101}, {"after": "x"}])
def test_pages_that_cannot_be(make: Make, wrong: dict[str, Any]) -> None:
    """The parameter is named."""
    store = make()
    store.put("me", stored("a"))
    with pytest.raises(Problem) as caught:
        store.input_items("me", "a", **wrong)
    assert caught.value.param in wrong


def test_a_file_outlives_its_server(tmp_path: Path) -> None:
    """What was complete is there; what was worked on has failed, and says why."""
    path = tmp_path / "responses.db"
    with closing(ResponseStore(path, clock=Clock())) as store:
        store.put("me", stored("a"))
        store.put("me", stored("b", status="in_progress"))
    assert path.stat().st_mode & 0o077 == 0
    with closing(ResponseStore(path, clock=Clock())) as store:
        assert store.get("me", "a") == stored("a")
        response = store.get("me", "b").response
        assert response["status"] == "failed"
        assert response["error"]["code"] == "server_error"


def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    """The error names it."""
    (tmp_path / "text").write_text("this is no database, but a text that is long enough")
    for path in (tmp_path / "text", tmp_path / "nowhere" / "x", tmp_path):
        with pytest.raises(DiskError, match=path.name):
            ResponseStore(path)


def test_several_threads(make: Make) -> None:
    """Nothing is lost, and nobody waits for ever."""
    store = make()

    def work(owner: str) -> None:
        for number in range(20):
            store.put(owner, stored(str(number)))
            store.get(owner, str(number))

    threads = [threading.Thread(target=work, args=(str(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(has(store, str(owner), str(number)) for owner in range(4) for number in range(20))


def test_a_disk_that_fails(tmp_path: Path) -> None:
    """It is said in a line, whatever is asked."""
    store = ResponseStore(tmp_path / "responses.db")
    store.close()
    with pytest.raises(DiskError):
        store.put("me", stored("a"))
    with pytest.raises(DiskError):
        store.get("me", "a")
