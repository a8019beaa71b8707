"""A session: what is sent, shown and kept, whatever goes wrong on the way."""

from __future__ import annotations

import io
import shutil
import weakref
from pathlib import Path
from unittest.mock import patch

import pytest
from rich.console import Console

from gptoss_mlx.chat import Chat
from gptoss_mlx.config import SamplingParams
from gptoss_mlx.conversations import Conversation, ConversationStore
from gptoss_mlx.engine import Engine
from gptoss_mlx.errors import EngineError
from gptoss_mlx.harmony import FunctionTool, Message, Setup
from gptoss_mlx.terminal.view import View
from gptoss_mlx.tokenizer import Tokenizer
from terminal.sessions import Echo, Typed, answer, file_of, open_session

EMPTY = "<|channel|>analysis<|message|>Hm.<|return|>"
CALL = "<|channel|>commentary to=functions.{}<|message|>{}<|call|>"


@pytest.fixture
def store(data: Path) -> ConversationStore:
    """The conversations of this test."""
    assert not data.exists()
    return ConversationStore()


def test_messages_until_the_user_leaves(tokenizer: Tokenizer, store: ConversationStore) -> None:
    """Each is answered and kept; blank ones are passed over, and Ctrl-C in the line is no end."""
    session = open_session(tokenizer, answer("One."), answer("Two."), store=store)
    session.run(Typed("first", "  \n", KeyboardInterrupt, "second", EOFError, "never read"))
    assert session.out == "One.\nTwo.\n"
    assert session.said == session.on_disk == ["first", "One.", "second", "Two."]
    assert session.err == "(/bye or Ctrl-D leaves)\n"


def test_each_turn_is_kept_at_once(tokenizer: Tokenizer, store: ConversationStore) -> None:
    """The file is there after the first answer, for its owner only, with all that was set."""
    session = open_session(tokenizer, answer("One."), store=store, tools=[Echo()])
    assert store.list() == []
    session.handle("first")
    assert file_of(session).stat().st_mode & 0o777 == 0o600
    kept = store.load("last")
    assert (kept.title, kept.model, kept.tools) == ("first", "replay", ("echo",))


def test_a_private_session_writes_nothing(tokenizer: Tokenizer, data: Path) -> None:
    """Without a store there is no file."""
    session = open_session(tokenizer, answer("One."))
    session.run(Typed("first"))
    assert not data.exists()


def test_a_conversation_goes_on(tokenizer: Tokenizer, store: ConversationStore) -> None:
    """Taken up again it is shown, and the model reads what was said before."""
    session = open_session(tokenizer, answer("One."), store=store, tools=[Echo()])
    session.handle("first")
    again = open_session(
        tokenizer,
        answer("Two."),
        store=store,
        conversation=store.load(session.conversation.id[:18]),
    )
    again.recall()
    assert again.out == "One.\n"
    assert again.err == ("first (1 turn)\n(it had tools that are not open now: echo)\n>>> first\n")
    again.handle("second")
    assert again.on_disk == ["first", "One.", "second", "Two."]
    assert "first" in tokenizer.decode(again.chat.prompt())
    assert len(store.list()) == 1


def test_recalling_what_has_no_answer_or_no_message(tokenizer: Tokenizer) -> None:
    """A file may hold anything."""
    begun = Conversation("replay", Setup())
    session = open_session(tokenizer, conversation=begun)
    session.recall()
    begun.messages.append(Message("user", "first"))
    session.recall()
    assert session.err == "(no title) (0 turns)\n(no title) (1 turn)\n>>> first\n"
    assert session.out == ""


def test_a_disk_that_is_full_for_a_while(tokenizer: Tokenizer, store: ConversationStore) -> None:
    """It is said once; the conversation goes on, and is written when that is possible again."""
    session = open_session(tokenizer, *map(answer, ("One.", "Two.", "Three.")), store=store)
    full = OSError(28, "No space left on device")
    with patch("gptoss_mlx.conversations.store.write_file", side_effect=full):
        session.handle("first")
        session.handle("second")
    assert session.err.count("not being kept") == 1
    assert session.out == "One.\nTwo.\n"
    session.handle("third")
    assert session.on_disk == ["first", "One.", "second", "Two.", "third", "Three."]


def test_leaving_tries_once_more(tokenizer: Tokenizer, store: ConversationStore) -> None:
    """What could not be written before is, at the end."""
    session = open_session(tokenizer, answer("One."), store=store)
    with patch("gptoss_mlx.conversations.store.write_file", side_effect=OSError(28, "full")):
        session.handle("first")
    session.run(Typed())
    assert session.on_disk == ["first", "One."]


def test_a_folder_that_is_gone(tokenizer: Tokenizer, store: ConversationStore) -> None:
    """It is made again."""
    session = open_session(tokenizer, answer("One."), answer("Two."), store=store)
    session.handle("first")
    shutil.rmtree(store.folder)
    session.handle("second")
    assert session.on_disk == ["first", "One.", "second", "Two."]


def test_a_file_that_somebody_else_made(tokenizer: Tokenizer, store: ConversationStore) -> None:
    """It is left alone, and said."""
    session = open_session(tokenizer, answer("One."), store=store)
    store.folder.mkdir(parents=True)
    file_of(session).write_text("mine")
    session.handle("first")
    assert "not being kept" in session.err
    assert file_of(session).read_text() == "mine"


@pytest.mark.parametrize("where", ["answer", "thought"])
def test_ctrl_c_in_mid_answer(tokenizer: Tokenizer, store: ConversationStore, where: str) -> None:
    """What was seen of the answer stays, on disk, too; the next message is answered."""
    begun = {"answer": answer("One, two, three, four"), "thought": answer("", "One, two, three")}
    session = open_session(tokenizer, begun[where], answer("Two."), store=store)
    method = "_write" if where == "answer" else "_think"
    with patch.object(View, method, side_effect=[None, None, KeyboardInterrupt]):
        session.handle("first")
    assert session.err == "(stopped)\n"
    seen = ["first", "One, two"] if where == "answer" else ["first"]
    assert session.on_disk == seen
    session.handle("second")
    assert session.said == [*seen, "second", "Two."]


def test_ctrl_c_in_a_tool(tokenizer: Tokenizer, store: ConversationStore) -> None:
    """The call has a result, and the conversation goes on."""
    session = open_session(
        tokenizer, CALL.format("echo", "ctrl-c"), answer("Two."), store=store, tools=[Echo()]
    )
    session.handle("first")
    assert session.err.endswith("(stopped)\n")
    assert session.on_disk == ["first", "[ERROR] the user stopped this call"]
    session.handle("second")
    assert session.out == "Two.\n"


def test_an_engine_that_fails(tokenizer: Tokenizer, store: ConversationStore) -> None:
    """Its error is a line; what was asked stays, for /retry."""
    session = open_session(tokenizer, answer("One."), answer("Two."), store=store)
    with patch.object(View, "show", side_effect=EngineError("the GPU is gone")):
        session.handle("first")
    assert session.err == "Error: the GPU is gone\n"
    assert session.on_disk == ["first"]
    session.handle("/retry")
    assert session.on_disk == ["first", "Two."]


def test_an_internal_error_ends_no_session(tokenizer: Tokenizer) -> None:
    """A bug is a line, too."""
    session = open_session(tokenizer, answer("One."))
    with patch.object(Chat, "send", side_effect=ZeroDivisionError("oh")):
        session.run(Typed("first", "/effort"))
    assert session.err == "Internal error: ZeroDivisionError('oh')\neffort: medium\n"


def test_a_reader_of_answers_that_is_gone(tokenizer: Tokenizer) -> None:
    """`chat | head`: there is nothing to go on for."""
    session = open_session(tokenizer, answer("One."))
    with (
        patch.object(View, "show", side_effect=BrokenPipeError),
        pytest.raises(BrokenPipeError),
    ):
        session.run(Typed("first"))


def test_a_message_that_is_too_long(tokenizer: Tokenizer, store: ConversationStore) -> None:
    """It is refused; nothing else is lost."""
    session = open_session(tokenizer, answer("One."), answer("Two."), store=store)
    session.chat.engine.context = 300
    session.handle("first")
    session.handle("word " * 400)
    assert session.err.startswith("Error: ")
    assert session.said == session.on_disk == ["first", "One."]


def test_the_context_fills_up(tokenizer: Tokenizer) -> None:
    """There is a warning before, and a notice when turns are left out."""
    session = open_session(tokenizer, *[answer("One.")] * 8)
    session.chat.engine.context = 400
    session.options = type(session.options)(SamplingParams(0, max_tokens=20))
    notes: list[str] = []
    for _ in range(6):
        session.handle("word " * 60)
        notes.append(session.err)
    warned = next(i for i, note in enumerate(notes) if "% full: the oldest turns will be" in note)
    dropped = next(i for i, note in enumerate(notes) if "left out)" in note)
    assert 0 < warned < dropped
    assert "Error" not in "".join(notes)


def test_an_empty_answer(tokenizer: Tokenizer) -> None:
    """A model that thinks and says nothing: that is told."""
    session = open_session(tokenizer, EMPTY)
    session.handle("first")
    assert session.err == "(the model ended without an answer: /retry asks again)\n"


def test_an_answer_that_is_cut_off(tokenizer: Tokenizer) -> None:
    """A limit was reached: that is told."""
    session = open_session(tokenizer, answer("One, two, three, four, five"))
    session.options = type(session.options)(SamplingParams(0, max_tokens=12))
    session.handle("first")
    assert session.err == "(cut off: the token limit was reached)\n"


def test_too_many_calls(tokenizer: Tokenizer) -> None:
    """Where a loop of calls was ended, that is told."""
    session = open_session(tokenizer, *[CALL.format("echo", "1")] * 3, tools=[Echo()])
    session.chat.max_rounds = 2
    session.handle("first")
    assert session.err.endswith("(stopped after 2 calls of tools)\n")


def test_another_message_instead_of_a_result(tokenizer: Tokenizer) -> None:
    """A call of the user's function that is not answered does not stay open."""
    setup = Setup(functions=(FunctionTool("theirs"),))
    session = open_session(tokenizer, CALL.format("theirs", "{}"), answer("Two."), setup=setup)
    session.handle("first")
    assert session.err == "-> functions.theirs {}\n(the result is yours to give: /result TEXT)\n"
    session.handle("second")
    assert session.said == ["first", "[ERROR] the user gave no result", "second", "Two."]


def test_an_empty_line_before_the_next_prompt(tokenizer: Tokenizer) -> None:
    """On a terminal, and not when the user leaves."""
    session = open_session(tokenizer, answer("One."))
    err = io.StringIO()
    session.view = View(Console(file=io.StringIO()), Console(file=err, force_terminal=True))
    session.run(Typed("/effort low", "/bye"))
    text = err.getvalue()
    assert "effort: low" in text
    assert text.endswith("\n\n")
    assert not text.endswith("\n\n\n")


def test_status(tokenizer: Tokenizer) -> None:
    """The line says the model's name without its folder, and what the last turn left."""
    session = open_session(tokenizer, answer("One."), tools=[Echo()])
    session.conversation.model = "/models/tiny"
    assert session.status() == "tiny, medium | 0 of 65,536 tokens (0%) | echo"
    session.handle("first")
    assert session.status().startswith(f"tiny, medium | {session.used} of 65,536 tokens (0%) | ")
    assert session.status().endswith(" tok/s | 0 reused | echo")


def test_the_old_model_makes_room_first(tokenizer: Tokenizer) -> None:
    """When the new one is loaded, nothing holds the old one any more."""
    session = open_session(tokenizer, answer("One."))
    session.handle("first")
    model = weakref.ref(session.chat.engine)
    was_gone: list[bool] = []

    def open_model(name: str) -> tuple[Engine, Tokenizer]:
        assert name == "other"
        was_gone.append(model() is None)
        return type(session.models)(tokenizer).open_model(name)

    with patch.object(session.models, "open_model", open_model):
        session.set_model("other")
    assert was_gone == [True]


def test_close(tokenizer: Tokenizer) -> None:
    """Tools and model end with the session."""
    tool = Echo()
    session = open_session(tokenizer, answer("One."), tools=[tool])
    session.close()
    assert tool.is_closed
    session.handle("first")
    assert session.err.startswith("Error: ")


def test_tracebacks_are_shown_to_those_who_want_them(tokenizer: Tokenizer) -> None:
    """With --debug an error in a session says where it came from; without it is one line."""
    session = open_session(tokenizer)
    session.handle("/effort huge")
    assert "Traceback" not in session.err
    session.view.shows_tracebacks = True
    session.handle("/effort huge")
    shown = session.err
    assert "Traceback" in shown
    assert shown.rstrip().endswith("'huge'")
