"""What a patch is shown as, and that it is applied as it was shown or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptoss_mlx.errors import ToolError
from gptoss_mlx.tools.apply_patch.tool import ApplyPatchTool
from tools.patches import CALL, EVERYTHING, make_project, tree, wrap


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small project."""
    return make_project(tmp_path)


@pytest.fixture
def tool(root: Path) -> ApplyPatchTool:
    """The tool, in the project."""
    return ApplyPatchTool(root)


def test_preview_is_a_diff(tool: ApplyPatchTool, root: Path) -> None:
    """Every file is shown as git would, and nothing is changed."""
    before = tree(root)
    preview = tool.preview(CALL, EVERYTHING)
    assert preview.title == "apply_patch new/deep/c.md, b.txt, src/a.py -> lib/a.py"
    assert preview.language == "diff"
    assert not preview.is_harmless
    assert preview.body.splitlines() == [
        "--- /dev/null",
        "+++ b/new/deep/c.md",
        "@@ -0,0 +1 @@",
        "+# C",
        "--- a/b.txt",
        "+++ /dev/null",
        "@@ -1,2 +0,0 @@",
        "-one",
        "-two",
        "--- a/src/a.py",
        "+++ b/lib/a.py",
        "@@ -1,2 +1,2 @@",
        " def f():",
        "-    return 1",
        "+    return 2",
    ]
    assert tree(root) == before


def test_preview_of_odd_files(tool: ApplyPatchTool, root: Path) -> None:
    """Control characters are made visible; a missing newline, and what is empty, are shown."""
    (root / "odd").write_bytes(b"a\x1b[2J\r\n\xff\x7f\r\nb")
    preview = tool.preview(CALL, wrap("*** Update File: odd", "-b", "+c", "*** Add File: empty"))
    assert preview.body.splitlines() == [
        "--- a/odd",
        "+++ b/odd",
        "@@ -1,3 +1,3 @@",
        " a␛[2J",
        " ��",
        "-b",
        "\\ No newline at end of file",
        "+c",
        "\\ No newline at end of file",
        "--- /dev/null",
        "+++ b/empty",
    ]


def test_what_was_shown_is_written(tool: ApplyPatchTool, root: Path) -> None:
    """A file that changes after the preview is not patched; shown again, it is."""
    tool.preview(CALL, EVERYTHING)
    (root / "src/a.py").write_text("def f():\n    return 1\n\nsecret = 1\n")
    before = tree(root)
    with pytest.raises(ToolError, match=r"has changed since the patch was shown \(src/a.py\)"):
        tool.run(CALL, EVERYTHING)
    assert tree(root) == before
    assert " secret = 1" in tool.preview(CALL, EVERYTHING).body
    tool.run(CALL, EVERYTHING)
    assert (root / "lib/a.py").read_text().endswith("return 2\n\nsecret = 1\n")


def test_what_was_shown_no_longer_fits(tool: ApplyPatchTool, root: Path) -> None:
    """The error says that the file has changed, and what is wrong now."""
    tool.preview(CALL, EVERYTHING)
    (root / "src/a.py").write_text("def g(): ...\n")
    with pytest.raises(ToolError, match=r"since the patch was shown \(src/a.py: the hunk at"):
        tool.run(CALL, EVERYTHING)


def test_a_link_that_leads_elsewhere_since(tool: ApplyPatchTool, root: Path) -> None:
    """What is written is also where it was shown to be."""
    (root / "c.txt").write_text("one\n")
    (root / "link").symlink_to("b.txt")
    text = wrap("*** Update File: link", "-one", "+1")
    tool.preview(CALL, text)
    (root / "link").unlink()
    (root / "link").symlink_to("c.txt")
    with pytest.raises(ToolError, match=r"has changed since the patch was shown \(link\)"):
        tool.run(CALL, text)
    assert (root / "c.txt").read_text() == "one\n"


def test_a_preview_binds_only_its_patch(tool: ApplyPatchTool, root: Path) -> None:
    """Another patch, and the same one once more, are applied to the files as they are."""
    text = wrap("*** Update File: b.txt", "-two", "+2")
    tool.preview(CALL, EVERYTHING)
    (root / "b.txt").write_text("two\n")
    tool.run(CALL, text)
    (root / "b.txt").write_text("one\ntwo\n")
    tool.preview(CALL, text)
    tool.run(CALL, text)
    (root / "b.txt").write_text("two\nthree\n")
    tool.run(CALL, text)
    assert (root / "b.txt").read_text() == "2\nthree\n"
