"""The patch format: what is read from a text, and where a hunk finds its place."""

from __future__ import annotations

import pytest

from gptoss_mlx.errors import ToolError
from gptoss_mlx.tools.apply_patch.patch import parse_patch, patched

TWO_CLASSES = """\
class A:
    def run(self):
        x = 1
        return x

class B:
    def run(self):
        x = 1
        return x
"""


def apply(text: str, hunks: str, name: str = "f.py") -> str:
    """The text after the hunks of one Update File."""
    patch = f"*** Begin Patch\n*** Update File: {name}\n{hunks}\n*** End Patch"
    (section,) = parse_patch(patch)
    return patched(text, section.hunks, name)


def test_all_kinds_of_sections() -> None:
    """Add, Delete, Update and Move are told apart, with their lines."""
    add, delete, update = parse_patch(
        "*** Begin Patch\n*** Add File: a b.txt\n+one\n\n+two\n*** End of File\n\n"
        "*** Delete File: c\n*** Update File: d\n*** Move to: e\n@@ class X\n@@ def y\n a\n-b\n+c\n"
        "*** End of File\n*** End Patch\n"
    )
    assert (add.action, add.path, add.added) == ("Add", "a b.txt", "one\n\ntwo\n")
    assert (delete.action, delete.path) == ("Delete", "c")
    assert (update.action, update.path, update.move_to) == ("Update", "d", "e")
    (hunk,) = update.hunks
    assert hunk.headers == ["class X", "def y"]
    assert hunk.lines == [(" ", "a"), ("-", "b"), ("+", "c")]
    assert hunk.is_at_end


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("```\n", "\n```"),
        ("```diff\n", "\n```\n"),
        ("apply_patch <<'EOF'\n", "\nEOF\n"),
        ("Here it is:\n\n", "\n\n"),
    ],
)
def test_wrappings_are_ignored(before: str, after: str) -> None:
    """A code fence, a heredoc or a sentence around a patch are no part of it."""
    (section,) = parse_patch(f"{before}*** Begin Patch\n*** Delete File: a\n*** End Patch{after}")
    assert section.path == "a"


def test_patch_with_carriage_returns() -> None:
    """A patch whose lines end in CRLF reads like another."""
    text = "*** Begin Patch\r\n*** Update File: a\r\n-x\r\n+y\r\n*** End Patch\r\n"
    (section,) = parse_patch(text)
    assert section.hunks[0].lines == [("-", "x"), ("+", "y")]


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ("", "no patch"),
        ("*** Begin Patch\n*** Delete File: a", "has no line"),
        ("*** Begin Patch\n*** End Patch", "empty"),
        ("*** Begin Patch\nhello\n*** End Patch", "line 2 of the patch is 'hello'"),
        ("*** Begin Patch\n*** Add File: a\nhello\n*** End Patch", "line 3 .* with [+]"),
        ("*** Begin Patch\n*** Delete File: a\n-b\n*** End Patch", "has no lines"),
        ("*** Begin Patch\n*** Delete File:\n*** End Patch", "names no file"),
        ("*** Begin Patch\n*** Update File: a\n*** End Patch", "no hunks"),
        ("*** Begin Patch\n*** Update File: a\n@@ x\n*** End Patch", "line 3 .* has no lines"),
        ("*** Begin Patch\n*** Update File: a\nx = 1\n*** End Patch", "line 3 .* is 'x = 1'"),
        ("*** Begin Patch\n*** Update File: a\n-b\n*** Move to: c\n*** End Patch", "Move to"),
        (
            "*** Begin Patch\n*** Delete File: a\n*** End Patch\n"
            "*** Begin Patch\n*** Delete File: b\n*** End Patch",
            "line 4 .* one patch",
        ),
    ],
)
def test_what_is_no_patch_is_refused(patch: str, message: str) -> None:
    """What is wrong is named, with its line."""
    with pytest.raises(ToolError, match=message):
        parse_patch(patch)


@pytest.mark.parametrize(
    ("text", "hunks", "result"),
    [
        ("a\nb\nc\n", " a\n-b\n+B\n c", "a\nB\nc\n"),
        ("a\nb\nc\nd\ne\n", "-a\n+A\n@@\n d\n+D\n e", "A\nb\nc\nd\nD\ne\n"),
        ("a\n\nb\n", " a\n\n-b\n+B", "a\n\nB\n"),
        ("a\n", "-a", ""),
        ("", "+a", "a\n"),
        ("a\nb", " a\n-b\n+c", "a\nc"),
        ("a\nb", " a\n b\n+c", "a\nb\nc"),
        ("a\r\nb\r\n", " a\n-b\n+c\n+d", "a\r\nc\r\nd\r\n"),
        ("a\r\nb", " b\n+c", "a\r\nb\r\nc"),
        ("a\r\nb\nc\r\nd\r\n", " c\n-d\n+D", "a\r\nb\nc\r\nD\r\n"),
        ("a\u2028b\x0cc\nd\n", " a\u2028b\x0cc\n-d\n+e", "a\u2028b\x0cc\ne\n"),
    ],
)
def test_hunks(text: str, hunks: str, result: str) -> None:
    """Lines change; endings, and a missing newline at the end, stay."""
    assert apply(text, hunks) == result


@pytest.mark.parametrize(
    ("text", "hunks", "result"),
    [
        ("a  \nb\n", " a\n-b\n+c", "a  \nc\n"),
        ("\tif x:\n\t\tb\n", " if x:\n-b\n+c", "\tif x:\nc\n"),
        ("say(“hi” – you)\nb\n", ' say("hi" - you)\n-b\n+c', "say(“hi” – you)\nc\n"),
        ("  a\na\n", "-a\n+b", "  a\nb\n"),
    ],
)
def test_context_matches_less_exactly(text: str, hunks: str, result: str) -> None:
    """Whitespace and fancy punctuation may differ, the file's stay; the exact match comes first."""
    assert apply(text, hunks) == result


def test_headers_narrow_the_search() -> None:
    """One @@ line, several, and git's line numbers, which say nothing."""
    changed = TWO_CLASSES.replace(
        "class B:\n    def run(self):\n        x = 1", "class B:\n    def run(self):\n        x = 2"
    )
    edit = "-        x = 1\n+        x = 2"
    assert apply(TWO_CLASSES, f"@@ class B:\n{edit}") == changed
    assert apply(TWO_CLASSES, f"@@ class B:\n@@     def run(self):\n{edit}") == changed
    assert apply(TWO_CLASSES, f"@@ class B:\n@@ def run(self):\n{edit}") == changed
    assert apply(TWO_CLASSES, f"@@ -6,2 +6,2 @@ class B:\n{edit}") == changed
    assert apply(TWO_CLASSES, f"@@ class B:\n class B:\n     def run(self):\n{edit}") == changed
    assert apply(TWO_CLASSES, f"@@ not there\n class B:\n     def run(self):\n{edit}") == changed


def test_second_hunk_below_one_header() -> None:
    """A header above the previous hunk still means the lines below that hunk."""
    text = "def f():\n    a\n    b\n    c\n\ndef g():\n    c\n"
    hunks = "@@ def f():\n-    a\n+    A\n@@ def f():\n-    c\n+    C"
    assert apply(text, hunks) == "def f():\n    A\n    b\n    C\n\ndef g():\n    c\n"


def test_insertions_without_context() -> None:
    """Lines that only come go below their header, or to the end of the file."""
    assert apply("a\nb\n", "@@ a\n+x") == "a\nx\nb\n"
    assert apply("a\nb\n", "+x\n*** End of File") == "a\nb\nx\n"
    assert apply("a\nb\n", "@@ a\n+x\n") == "a\nx\nb\n"
    with pytest.raises(ToolError, match="has only"):
        apply("a\nb\n", "+x")


def test_end_of_file() -> None:
    """End of File means the last of several places; elsewhere it is refused."""
    assert apply("a\nb\na\n", " a\n+x\n*** End of File") == "a\nb\na\nx\n"
    with pytest.raises(ToolError, match="but line 1: leave"):
        apply("a\nb\n", " a\n+x\n*** End of File")


def test_empty_line_that_is_none() -> None:
    """Models count the end of the last line as a line: empty context at the end may be nothing."""
    assert apply("a\nb\n", " a\n-b\n+c\n\n") == "a\nc\n"


@pytest.mark.parametrize(
    "hunks",
    [
        "-        x = 1",
        "@@     def run(self):\n-        x = 1",
        "@@     def run(self):\n+        y",
    ],
)
def test_two_places_are_refused(hunks: str) -> None:
    """Where it could be either, the places are named and nothing is guessed."""
    with pytest.raises(
        ToolError, match=r"f.py: the hunk at line 3 of the patch fits at lines \d, \d"
    ):
        apply(TWO_CLASSES, hunks)


@pytest.mark.parametrize(
    ("hunks", "message"),
    [
        (" a\n b\n-X", "matches line 1 to 2 of the file; then the patch has 'X', the file 'c'"),
        (" c\n dove\n", "then the patch has 'dove', the file 'dover'"),
        ("-doves", "The patch has 'doves', line 4 of the file is 'dover'"),
        ("-zzzzzz", "Nothing in it is like 'zzzzzz'"),
        ("-c\n+C\n@@\n-a\n+A", "the hunk at line 5 .* but at line 1: order"),
        (" dover\n next", "the file 'the end of the file'"),
    ],
)
def test_a_hunk_that_is_not_there(hunks: str, message: str) -> None:
    """The error names the file, the line of the patch, and what nearly matches."""
    with pytest.raises(ToolError, match=message) as caught:
        apply("a\nb\nc\ndover\n", hunks, "some/file.py")
    assert str(caught.value).startswith("some/file.py: the hunk at line")


def test_large_files_are_quick() -> None:
    """A hundred thousand equal lines, and a hunk of thousands: fractions of a second."""
    text = "same\n" * 100_000
    with pytest.raises(ToolError, match="fits at lines 1, 2, 3, 4, 5 "):
        apply(text, "\n".join(["@@ same", *[" same"] * 5_000, "+new"]))
    with pytest.raises(ToolError, match="does not match"):
        apply(text, "\n".join([*[" same"] * 5_000, "-other"]))
