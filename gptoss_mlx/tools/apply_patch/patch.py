"""The patch format that the models were trained with: text -> sections, sections + old text -> new.

A hunk is looked for by its context and removed lines, from the end of the previous hunk on: as they
are, then without trailing whitespace, without surrounding whitespace, and with plain punctuation.
`@@` lines narrow the search. Where a hunk fits in two places it is refused, not guessed.

It knows nothing of files: no names are checked here, and nothing is read or written.
"""

from __future__ import annotations

import bisect
import difflib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from gptoss_mlx.errors import ToolError

__all__ = ["Hunk", "Section", "parse_patch", "patched"]

BEGIN, END, END_OF_FILE = "*** Begin Patch", "*** End Patch", "*** End of File"
MOVE = "*** Move to:"
_SHOWN = 5  # places named in an error
_COMPARED = 5_000  # lines of a file among which a similar one is looked for
_UNIFIED = re.compile(r"^-\d+(?:,\d+)? \+\d+(?:,\d+)? @@ ?")  # what git writes after `@@ `
_PUNCTUATION = str.maketrans(
    dict.fromkeys("‐‑‒–—―−", "-")
    | dict.fromkeys("‘’‚‛", "'")
    | dict.fromkeys("“”„‟", '"')
    | dict.fromkeys("\u00a0\u2002\u2003\u2007\u2009\u202f\u3000", " ")
)
_LEVELS: tuple[Callable[[str], str], ...] = (
    str,
    str.rstrip,
    str.strip,
    lambda line: line.translate(_PUNCTUATION).strip(),
)


@dataclass
class Hunk:
    """Lines to be found and what they become; `number` is its first line in the patch, from 1."""

    number: int
    headers: list[str] = field(default_factory=list[str])
    lines: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])  # (" +-", text)
    is_at_end: bool = False

    @property
    def old(self) -> list[str]:
        """The lines that the file has: context, and what is removed."""
        return [text for sign, text in self.lines if sign != "+"]

    @property
    def old_to_text(self) -> list[str]:
        """The same without the empty context at its end, which may stand for no line at all."""
        old = [(sign, text) for sign, text in self.lines if sign != "+"]
        while old and old[-1] == (" ", ""):
            del old[-1]
        return [text for _, text in old]


@dataclass
class Section:
    """What a patch does to one file. `added` is the text of a new one."""

    action: Literal["Add", "Delete", "Update"]
    path: str
    number: int
    move_to: str | None = None
    added: str = ""
    blanks: int = 0  # lines without + that Add File has since, which may only be a separator
    hunks: list[Hunk] = field(default_factory=list[Hunk])


_ACTIONS: dict[str, Literal["Add", "Delete", "Update"]] = {
    "*** Add File:": "Add",
    "*** Delete File:": "Delete",
    "*** Update File:": "Update",
}


def parse_patch(text: str) -> list[Section]:
    """The sections of a patch. What stands around it, a code fence or a heredoc, is ignored.

    Raises:
        ToolError: it is not in the format; the text names the line.
    """
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    begin = next((n for n, line in enumerate(lines) if line.rstrip() == BEGIN), None)
    if begin is None:
        raise ToolError(f"there is no patch: its first line must be {BEGIN!r}")
    end = next((n for n in range(begin, len(lines)) if lines[n].rstrip() == END), None)
    if end is None:
        raise ToolError(f"the patch has no line {END!r}: send all of it")
    for number, line in enumerate(lines[end + 1 :], end + 2):
        if line.startswith("*** "):
            raise ToolError(f"line {number} stands after {END!r}: send one patch in a call")
    sections = list(_sections(lines, begin + 1, end))
    if not sections:
        raise ToolError("the patch is empty: it needs an Add, Delete or Update File line")
    return sections


def _sections(lines: list[str], start: int, end: int) -> Iterator[Section]:
    section: Section | None = None
    for number, line in enumerate(lines[start:end], start + 1):
        action = next((prefix for prefix in _ACTIONS if line.startswith(prefix)), None)
        if action:
            if section:
                yield _complete(section)
            section = Section(_ACTIONS[action], line.removeprefix(action).strip(), number)
        elif section is None:
            if line.strip():
                raise _misplaced(number, line, "a patch begins with an Add, Delete or Update File")
        else:
            _take(section, number, line)
    if section:
        yield _complete(section)


def _take(section: Section, number: int, line: str) -> None:
    """One more line of a section."""
    if section.action == "Update":
        _take_update(section, number, line)
    elif section.action == "Add" and line.startswith("+"):
        section.added += "\n" * section.blanks + f"{line[1:]}\n"
        section.blanks = 0
    elif not line.strip() or line.rstrip() == END_OF_FILE:
        section.blanks += 1
    else:
        rule = "begins each line with +" if section.action == "Add" else "has no lines"
        raise _misplaced(number, line, f"{section.action} File {rule}")


def _take_update(section: Section, number: int, line: str) -> None:
    hunk = section.hunks[-1] if section.hunks else None
    if line.startswith(MOVE):
        if hunk or section.move_to is not None:
            raise _misplaced(number, line, "Move to stands once, right below Update File")
        section.move_to = line.removeprefix(MOVE).strip()
    elif line.rstrip() == END_OF_FILE and hunk:
        hunk.is_at_end = True
    elif line.startswith("@@"):
        if hunk is None or hunk.lines or hunk.is_at_end:
            section.hunks.append(hunk := Hunk(number))
        header = _UNIFIED.sub("", line[2:].removeprefix(" "), count=1)
        hunk.headers += [header] if header.strip() else []
    elif not line or line[0] in " +-":
        if hunk is None or hunk.is_at_end:
            if not line.strip():
                return  # an empty line between sections
            section.hunks.append(hunk := Hunk(number))
        hunk.lines.append((line[:1] or " ", line[1:]))
    else:
        raise _misplaced(number, line, "lines of Update File begin with a space, +, - or @@")


def _misplaced(number: int, line: str, rule: str) -> ToolError:
    return ToolError(f"line {number} of the patch is {line[:80]!r}: {rule}")


def _complete(section: Section) -> Section:
    """The section, if it is one; without the empty lines that set it off from the next."""
    if not section.path:
        raise ToolError(f"line {section.number} of the patch names no file")
    if section.action == "Add":
        return section
    for hunk in section.hunks:
        while hunk.lines and hunk.lines[-1] == (" ", "") and not any(map(str.strip, hunk.old)):
            del hunk.lines[-1]
        if not hunk.lines:
            raise ToolError(f"the hunk at line {hunk.number} of the patch has no lines")
    if section.action == "Update" and not section.hunks and section.move_to is None:
        raise ToolError(f"Update File: {section.path} has no hunks: say what changes")
    return section


def patched(text: str, hunks: Sequence[Hunk], name: str) -> str:
    """The text of a file after its hunks. Untouched lines stay as they are, their endings included.

    New lines end as most lines do; a file without a newline at its end stays without.

    Raises:
        ToolError: a hunk is found nowhere, or in several places; the text says what is there.
    """
    parts = re.split(r"(\r?\n)", text)
    lines, ends = parts[0::2], parts[1::2]
    usual = "\r\n" if 2 * ends.count("\r\n") > len(ends) else "\n"
    ends.append("")
    if not lines[-1]:
        del lines[-1], ends[-1]
    is_terminated = bool(not ends or ends[-1])
    found = _File(name, lines)
    result: list[tuple[str, str]] = []  # (line, ending)
    cursor = 0
    for hunk in hunks:
        place, old = found.place(hunk, cursor)
        result += zip(lines[cursor:place], ends[cursor:place], strict=True)
        cursor = place
        for sign, line in hunk.lines:
            if sign == "+":
                result.append((line, usual))
            elif cursor < place + old:
                result += [(lines[cursor], ends[cursor])] if sign == " " else []
                cursor += 1
    result += zip(lines[cursor:], ends[cursor:], strict=True)
    whole = [line + (end or usual) for line, end in result]
    if whole and not is_terminated:
        whole[-1] = result[-1][0]
    return "".join(whole)


class _Lines:
    """Lines as one level of exactness sees them, to be searched."""

    def __init__(self, lines: Sequence[str], simplify: Callable[[str], str]) -> None:
        self._simplify = simplify
        simple = [simplify(line) for line in lines]
        self._text = "\n" + "\n".join([*simple, ""])
        self._starts = list(itertools.accumulate((len(line) + 1 for line in simple), initial=0))

    def find(self, wanted: Sequence[str], start: int) -> int | None:
        """Where all of `wanted` stands first, at or below line `start`."""
        pattern = "\n" + "\n".join([*map(self._simplify, wanted), ""])
        offset = self._text.find(pattern, self._starts[start])
        return None if offset < 0 else bisect.bisect_left(self._starts, offset)

    def find_all(self, wanted: Sequence[str], start: int) -> Iterator[int]:
        """Every place, from above to below."""
        while start < len(self._starts) and (place := self.find(wanted, start)) is not None:
            yield place
            start = place + 1


class _File:
    """A file's lines, and where in them a hunk belongs."""

    def __init__(self, name: str, lines: Sequence[str]) -> None:
        self._name, self._lines = name, lines
        self._levels: dict[int, _Lines] = {}

    def _level(self, level: int) -> _Lines:
        if level not in self._levels:
            self._levels[level] = _Lines(self._lines, _LEVELS[level])
        return self._levels[level]

    def place(self, hunk: Hunk, cursor: int) -> tuple[int, int]:
        """(line where it begins, how many of its old lines are there)."""
        old = hunk.old
        if not old:
            return self._insertion(hunk, cursor), 0
        headers = sorted({max(header, cursor) for header in self._headers(hunk)})
        for wanted in (old, hunk.old_to_text):
            for level in range(len(_LEVELS) if wanted else 0):
                places = self._places(level, wanted, headers, cursor, hunk.is_at_end)
                if len(places) == 1:
                    return places[0], len(wanted)
                if places:
                    raise self._ambiguous(hunk, places)
        raise self._missing(hunk, cursor)

    def _places(
        self, level: int, wanted: list[str], headers: list[int], cursor: int, is_at_end: bool
    ) -> list[int]:
        """Where lines may be meant, at one level of exactness: a few places at most."""
        lines = self._level(level)
        if is_at_end:
            last = len(self._lines) - len(wanted)
            return [last] if last >= cursor and lines.find(wanted, last) == last else []
        if not headers:
            return list(itertools.islice(lines.find_all(wanted, cursor), _SHOWN))
        places: list[int] = []
        for header in headers:  # the first place below each; one is counted once
            if places and header <= places[-1]:
                continue
            place = lines.find(wanted, header)
            if place is None or len(places) == _SHOWN:
                break
            places.append(place)
        return places

    def _headers(self, hunk: Hunk) -> list[int]:
        """Where the innermost `@@` line stands, once for each place of the outermost.

        Headers that stand nowhere only fail to narrow the search.
        """
        places: list[int] = []
        for header in hunk.headers:
            found = self._lines_like(header)
            if places:
                below = (bisect.bisect_right(found, place) for place in places)
                found = sorted({found[index] for index in below if index < len(found)})
            places = found or places
        return places

    def _lines_like(self, line: str) -> list[int]:
        """Where a line stands, at the first level of exactness that has it anywhere."""
        for level in range(len(_LEVELS)):
            if found := list(self._level(level).find_all([line], 0)):
                return found
        return []

    def _insertion(self, hunk: Hunk, cursor: int) -> int:
        """Where lines belong that come without context."""
        if hunk.is_at_end or not self._lines:
            return len(self._lines)
        places = [header + 1 for header in self._headers(hunk) if header + 1 >= cursor]
        if not places:
            raise ToolError(
                f"{self._name}: {_at(hunk)} has only + lines, and could go anywhere: add lines of "
                f"context, an @@ line that is in the file, or {END_OF_FILE!r}"
            )
        if len(places) > 1:
            raise self._ambiguous(hunk, places)
        return places[0]

    def _ambiguous(self, hunk: Hunk, places: Sequence[int]) -> ToolError:
        numbers = ", ".join(str(place + 1) for place in places[:_SHOWN])
        return ToolError(
            f"{self._name}: {_at(hunk)} fits at lines {numbers} of the file: add lines of context, "
            "or an @@ line that stands above the right one only"
        )

    def _missing(self, hunk: Hunk, cursor: int) -> ToolError:
        """What to tell of a hunk that is not there: where it nearly is."""
        text = f"{self._name}: {_at(hunk)} does not match the file"
        earlier = self._level(2).find(hunk.old, 0)
        if earlier is not None and earlier < cursor:
            return ToolError(
                f"{text} below the hunk before it, but at line {earlier + 1}: order hunks as the "
                "file is, and let them not overlap"
            )
        if earlier is not None and hunk.is_at_end:
            return ToolError(f"{text}'s end, but line {earlier + 1}: leave {END_OF_FILE!r} out")
        return ToolError(f"{text}. {self._nearest(hunk.old, cursor)} Read the file again")

    def _nearest(self, old: list[str], cursor: int) -> str:
        """How far the old lines do match, or which line is most like the first of them."""
        lines = self._level(2)
        matching = bisect.bisect_left(
            range(1, len(old)), True, key=lambda count: lines.find(old[:count], cursor) is None
        )
        place = lines.find(old[:matching], cursor) if matching else None
        if place is not None and any(line.strip() for line in old[:matching]):
            there = (*self._lines, "the end of the file")[place + matching]
            return (
                f"It matches line {place + 1} to {place + matching} of the file; then the patch "
                f"has {old[matching][:200]!r}, the file {there[:200]!r}."
            )
        first = next((line for line in old if line.strip()), "")
        close = difflib.get_close_matches(first, self._lines[:_COMPARED], n=1)
        if not close:
            return f"Nothing in it is like {first[:200]!r}."
        number = self._lines.index(close[0]) + 1
        return f"The patch has {first[:200]!r}, line {number} of the file is {close[0][:200]!r}."


def _at(hunk: Hunk) -> str:
    return f"the hunk at line {hunk.number} of the patch"
