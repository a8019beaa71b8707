"""Markdown on a terminal while it streams: finished blocks stay, the last one is redrawn.

The text is cut at its top-level blocks (paragraph, list, fence, ...). A block is finished once
another has begun, since no later line can change it then; it is printed for good. Only the last
one lives in a region that is erased and drawn again, at most ten times a second, and of which no
more than fits the screen is shown. It does not know where the text comes from.

Two things are left out of Markdown, because a block on the screen cannot be changed any more and
nothing that the model wrote is to be hidden: definitions of link references and HTML are shown as
they are written. Links show where they lead.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement
from rich.segment import Segment, Segments
from rich.syntax import Syntax
from rich.text import Text
from rich.theme import Theme

from gptoss_mlx.terminal.text import printable

__all__ = ["MarkdownStream"]

INTERVAL = 0.1  # seconds between two redraws, or more where a redraw takes long
CODE_MARGIN = 50  # lines of code above the shown ones that the highlighter begins with
THEME = Theme(
    {
        "markdown.code": "cyan",
        "markdown.h1": "bold underline",
        **{f"markdown.h{level}": "bold" for level in range(2, 7)},
    }
)
_log = logging.getLogger(__name__)

_Lines = list[list[Segment]]


class _Code(CodeBlock):
    """Code in the terminal's own colours, without a margin that would be copied along."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Syntax(str(self.text).rstrip(), self.lexer_name, theme="ansi_dark", word_wrap=True)


class _Heading(Heading):
    """A heading at the left, whatever its level."""

    LEVEL_ALIGN: ClassVar = {}


class _Block(Markdown):
    """One block, parsed already."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "fence": _Code,
        "code_block": _Code,
        "heading_open": _Heading,
    }

    def __init__(self, tokens: list[Token]) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = tokens


def _parser() -> MarkdownIt:
    """A parser for which each block stands for itself and nothing is invisible."""
    parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
    return parser.disable(["autolink", "image", "reference"])


def _outliner() -> MarkdownIt:
    """The same, but it only finds the blocks, not what is inside them."""
    parser = _parser()
    parser.core.ruler.enableOnly(["normalize", "block"])
    return parser


class MarkdownStream:
    """Shows Markdown on a console piece by piece; used in a `with`, and by one thread.

    Where the console is no terminal, or has no colours (NO_COLOR, TERM=dumb) or no UTF-8, the text
    passes through as it is, but for what is dropped, and each piece is flushed at once. Leaving the
    `with`, for whatever reason, prints what came so far and gives the cursor back.

    Args:
        console: where it is shown; nothing else may redraw there meanwhile.
        clock: seconds, for the pace of redraws.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._is_plain = not _can_redraw(console)
        self._parser, self._outliner = _parser(), _outliner()
        self._pieces: list[str] = []  # what came since the last finished block
        self._live: Live | None = None
        self._due = 0.0  # when the region may be redrawn
        self._has_output = False
        self._ends_line = True
        self._is_closed = False

    def __enter__(self) -> MarkdownStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def push(self, text: str) -> None:
        """Show more text, at the latest with a `push`, `refresh` or `close` that comes later.

        Raises:
            ValueError: the stream is closed.
        """
        if self._is_closed:
            raise ValueError("push to a closed MarkdownStream")
        text = printable(text)
        if self._is_plain:
            self._write(text)
            return
        self._pieces.append(text)
        if self._clock() >= self._due:
            self.refresh()

    def refresh(self) -> None:
        """Show at once what has not been shown yet; for a caller that has nothing to push."""
        if self._is_plain or self._is_closed or not any(self._pieces):
            return
        began = self._clock()
        self._pieces = ["".join(self._pieces)]
        finished, rest = self._cut(self._pieces[0])
        self._show(finished, self._region(rest, has_output=self._has_output or bool(finished)))
        self._pieces = [rest]
        now = self._clock()
        self._due = now + max(INTERVAL, 4 * (now - began))  # at most a fifth of the time

    def close(self) -> None:
        """Print what is unfinished for good, end the line, and give the cursor back."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._is_plain:
            self._write("" if self._ends_line else "\n")
            return
        try:
            self._show(self._blocks("".join(self._pieces)), [])
        finally:
            if self._live:
                self._live.stop()

    def _write(self, text: str) -> None:
        encoding = self._console.encoding
        self._console.file.write(text.encode(encoding, "replace").decode(encoding))
        self._console.file.flush()
        self._ends_line = text.endswith("\n") if text else self._ends_line

    def _show(self, finished: list[str], region: _Lines) -> None:
        """Print blocks for good, and the region below them, in one write."""
        lines = self._lines(finished, self._has_output)
        if region and not self._live:
            self._start()
        with self._console:  # gathers what is written
            if self._live and (lines or not region):
                self._live.update(Segments([]), refresh=True)
            if lines:
                self._console.print(_segments(lines), end="", crop=False)
            if self._live and region:
                self._live.update(_segments(region, ends_line=False), refresh=True)
        self._has_output = self._has_output or bool(lines)

    def _start(self) -> None:
        """Begin a region, without a thread: that would draw amid what the caller prints."""
        self._live = Live(
            Segments([]),
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()  # hides the cursor: `close` must know of it by now

    def _cut(self, text: str) -> tuple[list[str], str]:
        """(the finished blocks, the rest): only whole lines can tell that a block has begun."""
        finished = self._blocks(text[: text.rfind("\n") + 1])[:-1]
        return finished, text[sum(map(len, finished)) :]

    def _blocks(self, text: str) -> list[str]:
        """The text, cut where a top-level block begins."""
        starts = [t.map[0] for t in self._outliner.parse(text) if t.level == 0 and t.map]
        lines = re.split(r"(?<=\n)", text)
        edges = [0, *starts[1:], len(lines)] if starts else []
        return ["".join(lines[begin:end]) for begin, end in pairwise(edges)]

    def _region(self, rest: str, has_output: bool) -> _Lines:
        """The last lines of what is unfinished: one less than the screen has, for the cursor."""
        height, width = max(2, self._console.height), self._console.width
        blocks = [self._shortened(block, height, width) for block in self._blocks(rest)]
        return self._lines(blocks, has_output)[1 - height :]

    def _shortened(self, block: str, rows: int, width: int) -> str:
        """The block, or what will look like its end, so that redrawing a long one stays cheap."""
        if len(block) <= 2 * rows * width and block.count("\n") <= 2 * rows:
            return block
        lines, tokens = block.split("\n"), self._outliner.parse(block)
        kind = tokens[0].type
        if kind == "fence":
            return "\n".join((lines[0], *lines[1:][-rows - CODE_MARGIN :]))
        if kind == "table_open":
            return "\n".join((*lines[:2], *lines[2:][-rows:]))
        if kind in ("bullet_list_open", "ordered_list_open"):
            items = [
                t.map[0] for t in tokens if t.map and t.type == "list_item_open" and t.level == 1
            ]
            return "\n".join(lines[max((i for i in items if i <= len(lines) - rows), default=0) :])
        end = block[-2 * rows * width :]
        return end if kind == "paragraph_open" else end[end.find("\n") + 1 :]

    def _lines(self, blocks: list[str], has_output: bool) -> _Lines:
        """The blocks as lines for the screen, with an empty line between any two."""
        lines: _Lines = []
        for block in blocks:
            rendered = self._rendered(block)
            if rendered and (has_output or lines):
                lines.append([])
            lines += rendered
        return lines

    def _rendered(self, block: str) -> _Lines:
        console = self._console
        options = console.options.update(height=None)
        try:
            with console.use_theme(THEME):
                lines = console.render_lines(_Block(self._parser.parse(block)), options, pad=False)
        except Exception:  # whatever a lexer or a layout stumbles over, the text is shown
            _log.debug("a block could not be rendered", exc_info=True)
            lines = console.render_lines(Text(block), options, pad=False)
        return _trimmed([_stripped(line) for line in lines])


def _can_redraw(console: Console) -> bool:
    has_colours = console.color_system is not None and not console.no_color
    is_screen = console.is_terminal and not console.is_dumb_terminal
    return is_screen and has_colours and console.encoding.startswith("utf")


def _stripped(line: list[Segment]) -> list[Segment]:
    """The line without spaces at its end, nor what entities may have smuggled in."""
    cleaned = [Segment(printable(s.text), s.style) for s in line if not s.control]
    while cleaned and not cleaned[-1].text.rstrip(" "):
        cleaned.pop()
    if cleaned:
        cleaned[-1] = Segment(cleaned[-1].text.rstrip(" "), cleaned[-1].style)
    return cleaned


def _trimmed(lines: _Lines) -> _Lines:
    """The lines without the empty ones at both ends."""
    inked = [i for i, line in enumerate(lines) if line]
    return lines[inked[0] : inked[-1] + 1] if inked else []


def _segments(lines: _Lines, ends_line: bool = True) -> Segments:
    flat = [segment for line in lines for segment in (*line, Segment.line())]
    return Segments(flat if ends_line else flat[:-1])
