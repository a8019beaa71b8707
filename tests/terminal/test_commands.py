"""Every slash command: what it changes, what it says, and what it does not touch when it fails."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest

from gptoss_mlx.conversations import Conversation, ConversationStore
from gptoss_mlx.harmony import FunctionTool, Message, Setup
from gptoss_mlx.terminal.commands import COMMANDS, is_command
from gptoss_mlx.tokenizer import Tokenizer
from terminal.sessions import Echo, Opened, Typed, answer, file_of, open_session

CALL = "<|channel|>commentary to=functions.theirs<|message|>{}<|call|>"
THEIRS = Setup(functions=(FunctionTool("theirs"),))


@pytest.fixture
def store(data: Path) -> ConversationStore:
    """The conversations of this test."""
    assert not data.exists()
    return ConversationStore()


@pytest.fixture
def session(tokenizer: Tokenizer, store: ConversationStore) -> Opened:
    """A conversation of one turn, and the model can say more."""
    session = open_session(tokenizer, *map(answer, ("One.", "Two.", "Three.")), store=store)
    session.handle("first")
    assert session.out == "One.\n"
    return session


@pytest.mark.parametrize(
    "text",
    ["/help", " /help", "/help\n", "/effort low", "/effort\tlow", "/quit", "/nonsense", "/etc",
     "/tmp is full, why?", "/system one\ntwo"],
)  # fmt: skip
def test_what_is_a_command(text: str) -> None:
    """Known ones wherever they stand; what looks like one is not sent by a slip of the finger."""
    assert is_command(text)


@pytest.mark.parametrize(
    "text",
    ["hello", "/usr/bin/x is what?", "/Users/me", "/etc/hosts", " /etc is what?", "/ is what?",
     "//", "/", "", "/nonsense\ncode", "what does /help do?", "/helper.py"],
)  # fmt: skip
def test_what_is_a_message(text: str) -> None:
    """Paths, and what has a space before it."""
    assert not is_command(text)


def test_a_text_after_a_command_that_takes_none(session: Opened) -> None:
    """It could be a message; nothing happens but that this is said."""
    session.handle("/quit smoking, how?")
    assert session.err.startswith("Error: /bye takes nothing after it")
    assert not session.is_over


def test_an_unknown_command(session: Opened) -> None:
    """It is not sent; how to send it is said."""
    session.handle("/etc")
    assert session.err.startswith("Error: /etc is no command (/help lists them)")
    session.handle(" /etc")
    assert session.on_disk == ["first", "One.", " /etc", "Two."]


def test_help(session: Opened) -> None:
    """Every command has a line."""
    session.handle("/?")
    lines = session.err.splitlines()
    assert [line.split()[0] for line in lines[: len(COMMANDS)]] == list(COMMANDS)
    assert "Alt-Enter" in lines[-1]


def test_effort(session: Opened) -> None:
    """It is for the next turn and kept; without a value it is told; a wrong one changes nothing."""
    session.handle("/effort HIGH")
    session.handle("/effort")
    session.handle("/effort extreme")
    assert session.err == (
        "effort: high\neffort: high\nError: the effort is low, medium or high, and not 'extreme'\n"
    )
    assert session.chat.setup.reasoning == "high"
    assert session.store is not None
    assert session.store.load("last").setup.reasoning == "high"


def test_system(session: Opened, tokenizer: Tokenizer) -> None:
    """Instructions, of several lines, too, that the model reads; `off` removes them."""
    session.handle("/system Be brief.\nBe kind.")
    assert "Be brief.\nBe kind." in tokenizer.decode(session.chat.prompt())
    session.handle("/system off")
    session.handle("/system")
    assert session.chat.setup.instructions is None
    assert session.err.endswith("instructions: (none)\n" * 2)


def test_tools(session: Opened) -> None:
    """They can be had, are listed, and can be closed; one that there is not changes nothing."""
    session.handle("/tools")
    session.handle("/tools echo")
    (tool,) = session.chat.toolbox.tools
    assert isinstance(tool, Echo)
    session.handle("/tools nonsense")
    assert session.chat.toolbox.tools == (tool,)
    assert not tool.is_closed
    session.handle("/tools off")
    assert tool.is_closed
    assert session.err == (
        "no tools; for example: /tools python,browser\necho: functions.echo\n"
        "Error: there is no tool 'nonsense'\nno tools; for example: /tools python,browser\n"
    )


def test_show(session: Opened) -> None:
    """The last chain of thought, and those to come, until it is said again."""
    session.handle("/show")
    assert session.err == "the chain of thought is shown\nHm.\n"
    session.handle("second")
    assert session.err == "Hm.\n"
    session.handle("/show")
    session.handle("third")
    assert session.err == "the chain of thought is hidden\n"


def test_retry(session: Opened) -> None:
    """Another answer takes the place of the last."""
    session.handle("/retry")
    assert session.out == "Two.\n"
    assert session.on_disk == ["first", "Two."]


def test_edit(session: Opened) -> None:
    """The message stands in the line; what is sent takes its place."""
    typed = Typed("/edit", "1st", "second")
    session.run(typed)
    assert typed.defaults == ["", "first", "", ""]
    assert session.on_disk == ["1st", "Two.", "second", "Three."]


@pytest.mark.parametrize("instead", [KeyboardInterrupt, "/effort", "   "])
def test_an_edit_that_is_given_up(session: Opened, instead: str | type[BaseException]) -> None:
    """Nothing has happened; a text after that is a new message."""
    session.run(Typed("/edit", instead, EOFError))
    assert session.on_disk == ["first", "One."]
    if instead != "   ":  # the line was emptied, and may still be filled
        assert session.edited is None


@pytest.mark.parametrize("how", [("/retry",), ("/edit", "word " * 400)])
def test_what_cannot_be_sent_replaces_nothing(session: Opened, how: tuple[str, ...]) -> None:
    """The turn that was to be replaced is there again."""
    session.chat.engine.context = 300 if len(how) > 1 else 20
    session.run(Typed(*how))
    assert session.err.startswith("Error: ")
    assert session.said == session.on_disk == ["first", "One."]


def test_undo(session: Opened) -> None:
    """The last turn goes, then the one before; a conversation without any has no file."""
    session.handle("second line one\nline two")
    session.handle("/undo")
    assert session.on_disk == ["first", "One."]
    session.handle("/undo")
    assert session.err == "taken back: second line one\ntaken back: first\n"
    assert not file_of(session).exists()


@pytest.mark.parametrize("command", ["/undo", "/retry", "/edit"])
def test_nothing_to_take_back(tokenizer: Tokenizer, command: str) -> None:
    """A message is needed for that."""
    session = open_session(tokenizer)
    session.handle(command)
    assert session.err == "Error: there is no message of yours yet\n"


def test_result(tokenizer: Tokenizer) -> None:
    """The model goes on with what the user gives."""
    session = open_session(tokenizer, CALL, answer("Two."), setup=THEIRS)
    session.handle("first")
    session.handle("/result 42")
    assert session.said == ["first", "42", "Two."]
    assert session.out == "Two.\n"
    session.handle("/result 42")
    assert session.err.endswith("Error: no call waits for a result\n")


def test_each_call_needs_a_result(tokenizer: Tokenizer) -> None:
    """The model goes on when the last of them is there."""
    two = CALL.replace("<|call|>", "<|end|><|start|>assistant") + CALL
    session = open_session(tokenizer, two, answer("Two."), setup=THEIRS)
    session.handle("first")
    session.handle("/result 1")
    assert session.out == ""
    session.handle("/result 2")
    assert session.out == "Two.\n"


def test_save(session: Opened) -> None:
    """A title, and where the file is."""
    session.handle("/save My title")
    assert session.store is not None
    (summary,) = session.store.list()
    assert summary.title == "My title"
    said = session.err.splitlines()
    assert said == [f"saved as {summary.id}: My title", f"in {file_of(session)}"]
    session.handle("second")
    assert session.store.list()[0].title == "My title"


def test_save_on_a_full_disk(session: Opened) -> None:
    """It is not said to be saved when it is not; the session is no private one for that."""
    with patch("gptoss_mlx.conversations.store.write_file", side_effect=OSError(28, "full")):
        session.handle("/save")
        session.handle("/save")
    assert session.err.count(f"Error: {file_of(session)} cannot be written: full") == 2
    session.handle("/save My title")
    assert session.err.startswith("saved as ")


def test_saving_nothing(tokenizer: Tokenizer, store: ConversationStore) -> None:
    """A conversation without messages, and a private one, are not saved."""
    session = open_session(tokenizer, store=store)
    session.handle("/save")
    open_session(tokenizer).handle("/save")
    assert session.err == "Error: there is nothing to save yet\n"
    private = open_session(tokenizer)
    private.handle("/save")
    assert private.err == "Error: this session is private: /export FILE writes it where you want\n"


def earlier(store: ConversationStore, *texts: str) -> Conversation:
    """A conversation with another model that was kept some time ago."""
    conversation = Conversation("another", Setup("high", "Be brief."))
    conversation.messages += [Message("user", text) for text in texts]
    store.save(conversation)
    return conversation


@pytest.mark.parametrize("how", ["id", "prefix", "file"])
def test_load(session: Opened, store: ConversationStore, how: str) -> None:
    """By its id, the beginning of it, or as a file; it goes on with this model, effort and all."""
    other = earlier(store, "hello")
    names = {"id": other.id, "prefix": other.id[:-1], "file": str(store.path(other.id))}
    session.handle(f"/load {names[how]}")
    assert session.err == "hello (1 turn)\n>>> hello\n"
    session.handle("second")
    assert session.on_disk == ["hello", "second", "Two."]
    assert (session.conversation.id == other.id) == (how != "file")
    assert session.chat.setup.instructions == "Be brief."
    assert store.load(session.conversation.id).model == "replay"
    assert session.status().startswith("replay, high")


def test_load_lists(session: Opened, store: ConversationStore, tokenizer: Tokenizer) -> None:
    """Without a name it says which there are."""
    other = earlier(store, "hello")
    session.handle("/load")
    lines = session.err.splitlines()
    assert lines[0] == f"{other.id}    1 turns  hello"
    assert lines[1].endswith("first")
    private = open_session(tokenizer)
    private.handle("/load")
    assert "private" in private.err


@pytest.mark.parametrize("name", ["nothing", "/nowhere/x.json", "a b", "x" * 5000, "."])
def test_loading_what_is_not_there(session: Opened, name: str) -> None:
    """A line says so; this conversation stays open."""
    session.handle(f"/load {name}")
    assert "rror: " in session.err
    session.handle("second")
    assert session.on_disk == ["first", "One.", "second", "Two."]


def test_loading_in_private(tokenizer: Tokenizer, store: ConversationStore) -> None:
    """Files can be read; what is kept elsewhere is not looked for."""
    other = earlier(store, "hello")
    private = open_session(tokenizer)
    private.handle(f"/load {other.id}")
    assert private.err == f"Error: there is no file {other.id}\n"
    private.handle(f"/load {store.path(other.id)}")
    assert private.said == ["hello"]


def test_export(session: Opened, tmp_path: Path) -> None:
    """Markdown, or with the ending for it the API's JSON; reasoning where it is shown."""
    session.handle(f"/export {tmp_path / 'x.md'}")
    assert "One." in (tmp_path / "x.md").read_text()
    assert "Hm." not in (tmp_path / "x.md").read_text()
    session.handle(f"/export {tmp_path / 'x.json'}")
    messages = json.loads((tmp_path / "x.json").read_text())["messages"]
    assert [message["content"] for message in messages] == ["first", "One."]
    session.handle("/show")
    session.handle(f"/export {tmp_path / 'y.md'}")
    assert "Hm." in (tmp_path / "y.md").read_text()
    assert f"written to {tmp_path / 'x.md'}\n" in session.err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "where to? /export FILE.md or FILE.json"),
        ("{folder}/there.md", "{folder}/there.md exists: choose another name, or remove it"),
        ("{folder}", "{folder} exists: choose another name, or remove it"),
        ("{folder}/no/x.md", "{folder}/no/x.md cannot be written: No such file or directory"),
    ],
)
def test_exports_that_cannot_be(session: Opened, tmp_path: Path, name: str, said: str) -> None:
    """A line says why, and nothing is overwritten."""
    (tmp_path / "there.md").write_text("mine")
    session.handle(f"/export {name.format(folder=tmp_path)}")
    assert session.err == f"Error: {said.format(folder=tmp_path)}\n"
    assert (tmp_path / "there.md").read_text() == "mine"


def test_clear(session: Opened, store: ConversationStore) -> None:
    """A new conversation with the same effort; the old one is kept."""
    session.handle("/effort low")
    session.handle("/clear")
    session.handle("second")
    assert session.on_disk == ["second", "Two."]
    assert session.chat.setup.reasoning == "low"
    assert sorted(summary.title for summary in store.list()) == ["first", "second"]


def test_stats(session: Opened, tokenizer: Tokenizer) -> None:
    """Counts and speed, once there is a turn."""
    session.handle("/stats")
    turn = session.chat.last_turn
    assert turn is not None
    status, prompt, said = session.err.splitlines()
    assert status == session.status()
    assert prompt.startswith(f"prompt: {turn.stats.prompt_tokens} tokens, 0 of them reused")
    assert said.startswith(f"answer: {turn.stats.completion_tokens} tokens")
    fresh = open_session(tokenizer)
    fresh.handle("/stats")
    assert len(fresh.err.splitlines()) == 1


def test_model(session: Opened, store: ConversationStore) -> None:
    """Another one goes on with the conversation, and its name is kept."""
    session.handle("/model")
    session.handle("/model other")
    session.handle("second")
    assert session.err == "model: replay\nLoading other ...\nmodel: other\n"
    assert session.said == ["first", "One.", "second", "I am other."]
    assert store.load("last").model == "other"


def test_a_model_that_cannot_be_loaded(session: Opened) -> None:
    """The old one comes back."""
    session.handle("/model missing")
    assert session.models.opened == ["missing", "replay"]
    assert session.err == "Loading missing ...\nError: missing: no such folder\n"
    session.handle("second")
    assert session.on_disk == ["first", "One.", "second", "I am replay."]


def test_no_model_at_all(session: Opened) -> None:
    """Where the old one is gone as well, the session ends; the conversation is on disk."""
    session.models.missing.add("replay")
    typed = Typed("/model missing", "never read")
    session.run(typed)
    assert len(typed.defaults) == 1
    assert session.err.endswith("Error: replay: no such folder\n")
    assert session.on_disk == ["first", "One."]
    session.close()


@pytest.mark.parametrize("command", ["/bye", "/exit", "/quit"])
def test_bye(session: Opened, command: str) -> None:
    """The user leaves."""
    typed = Typed(command, "never read")
    session.run(typed)
    assert typed.defaults == [""]
