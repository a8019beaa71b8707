"""Markdown that streams, seen through a terminal emulator."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Iterable, Iterator

import pyte
import pytest
from markdown_it import MarkdownIt
from pyte.modes import LNM
from rich.console import Console, ConsoleDimensions

from gptoss_mlx.terminal.markdown import MarkdownStream
from gptoss_mlx.terminal.text import printable

SIZES = ((80, 24), (40, 10), (17, 5))
DOCUMENT = """\
# Weather in *Oslo*

Rain, then `sun`, see
[the source](https://example.org/oslo) and <b>this</b>.
Setext
---

- one

  still one
- two
  - nested 東京 is wide
    1. deeper

- three after a blank line

7. seven
8. eight

```python
def f(x):  # a comment 🌧
    return \"\"\"text

    over lines\"\"\" + x
```
| town | rain |
|------|-----:|
| Oslo | 3 mm |
| 東京 | 12 mm 🌧 |

> quoted text
continued lazily

***

[the source]: https://example.org

<details>
hidden?
</details>

    indented code

~~~
a fence that is never closed
"""
LONG_CODE = "Look:\n\n```python\n" + "".join(f"x{i} = {i}\n" for i in range(60)) + "```\n\nDone.\n"
LONG_LIST = "".join(f"{i}. item number {i}\n" for i in range(1, 50)) + "\nEnd"
WIDE = "東京の天気は雨です。" * 30 + "\n\n" + "👩‍👩‍👧 é 🇳🇴 " * 30 + "\n\nend"
DOCUMENTS = {
    "mixed": DOCUMENT,
    "code": LONG_CODE,
    "open code": LONG_CODE.split("```\n\nDone")[0],
    "list": LONG_LIST,
    "wide": WIDE,
}


class Terminal(io.StringIO):
    """A terminal emulator that a console can write to."""

    encoding = "utf-8"

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        super().__init__()
        self.screen = pyte.HistoryScreen(columns, rows, history=10_000, ratio=0.5)
        self.screen.set_mode(LNM)
        self.stream = pyte.Stream(self.screen)
        self.console = console(self, columns, rows)
        self.raw: list[str] = []

    def write(self, text: str) -> int:
        """Obey what a program writes."""
        self.raw.append(text)
        self.stream.feed(text)
        return len(text)

    def rows(self) -> list[str]:
        """Everything on the screen, after what has been scrolled away."""
        columns = range(self.screen.columns)
        history = ["".join(line[x].data for x in columns) for line in self.screen.history.top]
        lines = [*history, *self.screen.display]
        return [line.rstrip() for line in lines]

    def resize(self, columns: int, rows: int) -> None:
        """What happens when the user drags the window's corner."""
        self.screen.resize(rows, columns)
        self.console.size = ConsoleDimensions(columns, rows)


def console(file: io.StringIO, columns: int = 80, rows: int = 24, **environment: str) -> Console:
    """A console with colours that does not look at this machine's environment."""
    return Console(
        file=file,
        width=columns,
        height=rows,
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
        _environ={"TERM": "xterm-256color", **environment},
    )


def cut(text: str, seed: int, longest: int) -> Iterator[str]:
    """The text in pieces of random lengths."""
    source = random.Random(seed)
    while text:
        size = source.randint(1, longest)
        yield text[:size]
        text = text[size:]


class Ticks:
    """A clock that goes on whenever somebody looks, so that redraws are due soon."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time in seconds."""
        self.now += 0.06
        return self.now


def shown(pieces: Iterable[str], columns: int = 80, rows: int = 24) -> Terminal:
    """A terminal that has been shown the pieces, redrawn with each of them."""
    terminal = Terminal(columns, rows)
    with MarkdownStream(terminal.console, Ticks()) as stream:
        for piece in pieces:
            stream.push(piece)
    return terminal


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_however_it_is_cut_the_screen_ends_the_same(name: str, size: tuple[int, int]) -> None:
    """Pieces of any length leave what one piece leaves, scrolled away or not, and the cursor."""
    whole = shown([DOCUMENTS[name]], *size)
    for seed, longest in ((1, 5), (2, 60)):
        pieces = shown(cut(DOCUMENTS[name], seed, longest), *size)
        assert pieces.rows() == whole.rows()
        assert pieces.screen.cursor.y == whole.screen.cursor.y
        assert pieces.screen.cursor.x == 0
        assert not pieces.screen.cursor.hidden


def test_what_it_looks_like() -> None:
    """Modest headings at the left, links that show where they lead, nothing invisible."""
    rows = shown(cut(DOCUMENT, 0, 7)).rows()
    text = "\n".join(rows)
    assert rows[0] == "Weather in Oslo"
    assert "see the source (https://example.org/oslo) and <b>this</b>." in text
    assert "\n • two\n    • nested 東京 is wide\n       1 deeper\n • three after" in text
    assert " 7 seven\n 8 eight\n" in text
    assert "[the source]: https://example.org\n\n<details> hidden? </details>" in text
    assert "\n\ndef f(x):  # a comment 🌧\n    return" in text
    assert "▌ quoted text continued lazily" in text
    assert text.rstrip().endswith("a fence that is never closed")
    assert "\n\n\n" not in text.rstrip()


def test_code_is_highlighted() -> None:
    """A keyword has a colour of its own."""
    terminal = shown(["```python\ndef f(): pass\n```\n"])
    line = terminal.screen.buffer[0]
    assert line[0].fg not in ("default", line[4].fg)


def test_blocks_alone_mean_what_they_mean_together() -> None:
    """Random Markdown cut into finished blocks, a line at a time, parses as the whole does."""
    bits = ["- a", "* b", "1. c", "  - d", "    e", "```", "~~~", "---", "===", "# h", "> q", "p"]
    bits += ["", "", "", "| a | b |", "|---|---|", "+", "2)", "\tt", "[r]: /u", "<div>", "`c", "**"]
    source = random.Random(5)
    parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
    parser.disable(["autolink", "image", "reference"])
    for _ in range(400):
        text = "\n".join(source.choices(bits, k=12))
        blocks: list[str] = []
        rest = ""
        stream = MarkdownStream(console(io.StringIO()))
        for piece in cut(text, source.randrange(1000), 6):
            finished, rest = stream._cut(rest + piece)  # pyright: ignore[reportPrivateUsage]
            blocks += finished
        assert "".join(blocks) + rest == text
        assert "".join(map(parser.render, [*blocks, rest])) == parser.render(text)


def test_finished_blocks_are_not_drawn_again() -> None:
    """A paragraph before a long list is written only until the list has begun."""
    terminal = shown(cut("UNIQUE\n\n" + LONG_LIST, 3, 9))
    later = "".join(terminal.raw[len(terminal.raw) // 3 :])
    assert "UNIQUE" not in later
    assert "number 49" in later


@pytest.mark.parametrize(
    "text", [LONG_CODE, LONG_LIST, "word " * 2000, "|a|\n|-|\n" + "|b|\n" * 99]
)
def test_a_region_is_lower_than_the_screen(text: str) -> None:
    """Of a block that does not fit its end is shown, and nothing is scrolled away by redrawing."""
    terminal = Terminal(40, 10)
    with MarkdownStream(terminal.console, Ticks()) as stream:
        for piece in cut(text.split("\n\nDone")[0], 4, 40):
            stream.push(piece)
        stream.refresh()
        finished = [row for row in terminal.rows() if "Look:" in row]
        assert len(terminal.rows()) <= 10 + 2 * len(finished)
        assert len([row for row in terminal.screen.display if row.strip()]) >= 7
        assert terminal.screen.cursor.hidden


def test_redraws_are_rare() -> None:
    """Ten a second at most, however many pieces come."""
    terminal = Terminal()
    now = [0.0]
    with MarkdownStream(terminal.console, lambda: now[0]) as stream:
        for number in range(2000):
            now[0] += 0.001
            stream.push(f"word{number} ")
        assert 15 <= len(terminal.raw) <= 22  # two seconds


def test_refresh_shows_what_waits() -> None:
    """A caller with nothing to push can have the last piece shown before it is due."""
    terminal = Terminal()
    with MarkdownStream(terminal.console, lambda: 0.0) as stream:
        stream.push("seen ")
        stream.push("waits")
        assert terminal.rows()[0] == "seen"
        stream.refresh()
        assert terminal.rows()[0] == "seen waits"


@pytest.mark.parametrize("size", [(20, 5), (200, 50), (1, 1), (3, 2)])
def test_a_resize_in_the_middle(size: tuple[int, int]) -> None:
    """It goes on at the new size, and the cursor comes back."""
    terminal = Terminal()
    pieces = list(cut(DOCUMENT, 6, 9))
    with MarkdownStream(terminal.console, Ticks()) as stream:
        for number, piece in enumerate(pieces):
            if number == len(pieces) // 2:
                terminal.resize(*size)
            stream.push(piece)
    assert not terminal.screen.cursor.hidden
    if size[0] >= 20:
        assert "a fence that is" in "\n".join(terminal.rows())


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_what_came(error: type[BaseException]) -> None:
    """Ctrl-C or an exception: what came is rendered for good, once, and the cursor comes back."""

    def interrupted(terminal: Terminal) -> None:
        with MarkdownStream(terminal.console, Ticks()) as stream:
            for piece in cut("Some\n\n```python\ncode = 1\n", 1, 4):
                stream.push(piece)
            raise error

    terminal = Terminal()
    with pytest.raises(error):
        interrupted(terminal)
    assert [row for row in terminal.rows() if row] == ["Some", "code = 1"]
    assert not terminal.screen.cursor.hidden


def test_nothing_writes_nothing() -> None:
    """No text, no output; and after the end nothing more is taken."""
    terminal = Terminal()
    with MarkdownStream(terminal.console) as stream:
        stream.push("")
    stream.close()
    assert "".join(terminal.raw) == ""
    with pytest.raises(ValueError, match="closed"):
        stream.push("x")


def test_control_characters_are_dropped() -> None:
    """Neither raw nor as entities, in text, code, links or tables, at any cut."""
    evil = "\x1b]0;t\x07\x1b[2J\x9b5m\u202e\u2066\x00\x7f\r\x08"
    text = f"a{evil}b &#27;[1m &#x202e; [t{evil}](http://x/{evil})\n\n```{evil}\nc{evil}d\n```\n"
    text += f"\n|h{evil}|\n|-|\n|&#x9b;i|\n\n~~~none\nx &#27;\n"
    raw = "".join(shown(cut(text, 2, 3)).raw)
    assert not set("\x9b\x07\u202e\u2066\x00\x7f\x08") & set(raw)
    for code in raw.split("\x1b")[1:]:
        assert code[0] == "["
        assert code.lstrip("[?0123456789;")[0] in "mhlAK", code  # colours, cursor, erase in line
    assert printable("ab\tc\nd\ud800é") == "ab\tc\nd\ufffdé"


@pytest.mark.parametrize("kind", ["file", "NO_COLOR", "dumb", "ascii"])
def test_where_nothing_can_be_redrawn_text_passes_through(kind: str) -> None:
    """As it is, each piece at once, and a line is ended."""

    class Sink(io.StringIO):
        encoding = "ascii" if kind == "ascii" else "utf-8"
        flushed = 0

        def flush(self) -> None:
            self.flushed += 1

    sink = Sink()
    target = console(sink, NO_COLOR="1") if kind == "NO_COLOR" else console(sink)
    if kind == "file":
        target = Console(file=sink, _environ={})
    if kind == "dumb":
        target = Console(file=sink, force_terminal=True, _environ={"TERM": "dumb"})
    with MarkdownStream(target) as stream:
        stream.push("# é\x1b[1m")
        assert sink.getvalue() == ("# ?[1m" if kind == "ascii" else "# é[1m")
        assert sink.flushed == 1
        stream.push("\n**b**")
    assert sink.getvalue().endswith("[1m\n**b**\n")


def test_what_cannot_be_rendered_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing highlighter costs the colours, not the text."""

    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("rich.syntax.Syntax.__init__", fail)
    rows = shown(["```python\nx = 1\n```\n"]).rows()
    assert rows[:3] == ["```python", "x = 1", "```"]


@pytest.mark.parametrize("kind", ["code", "list"])
def test_long_blocks_are_cheap(kind: str) -> None:
    """2,000 lines of code or a list of 30 kB, 4 characters at a time: no quadratic cost."""
    text = "```python\n" + "".join(f"value_{i} = f({i}, 'text')\n" for i in range(2000)) + "```\n"
    if kind == "list":
        text = "".join(f"- item {i} with **bold** words\n" for i in range(1000))
    began = time.process_time()
    with MarkdownStream(console(io.StringIO()), lambda: 0.0) as stream:  # only the first redraw
        for start in range(0, len(text), 4):
            stream.push(text[start : start + 4])
    assert time.process_time() - began < 4  # measured: 1 s; slow machines have some room
