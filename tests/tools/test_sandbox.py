"""Command lines and profiles, as text; what they keep out is tested in test_escapes."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptoss_mlx.errors import UsageError
from gptoss_mlx.tools.python import sandbox
from gptoss_mlx.tools.python.sandbox import (
    NO_NESTING,
    Bubblewrap,
    Folders,
    SandboxExec,
    Unconfined,
    find_sandbox,
    profile,
    sandbox_problem,
)

HOME = Path("/Users/me")
FOLDERS = Folders(
    work=Path('/Users/me/my "work"'),
    tmp=Path("/private/var/folders/ab/T/gptoss-x/tmp"),
    shm=Path("/private/var/folders/ab/T/gptoss-x/shm"),
    sockets=Path("/private/var/folders/ab/T/gptoss-x/sockets"),
    readable=(Path("/Users/me/.venv"),),
)


def _pairs(command: list[str], option: str) -> dict[str, str]:
    """Source to destination of an option with two values."""
    places = [index for index, word in enumerate(command) if word == option]
    return {command[index + 1]: command[index + 2] for index in places}


def _script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def _install(monkeypatch: pytest.MonkeyPatch, program: str | None) -> None:
    """Let `program` be what is found as bubblewrap, on Linux."""

    def which(_: str) -> str | None:
        return program

    monkeypatch.setattr(sandbox.sys, "platform", "linux")
    monkeypatch.setattr(sandbox.shutil, "which", which)


def test_unconfined_changes_nothing() -> None:
    """Without a sandbox the command and the folders stay as they are."""
    assert Unconfined().command(["python", "-c", ""], FOLDERS) == ["python", "-c", ""]
    assert Unconfined().inside(FOLDERS) is FOLDERS


def test_bubblewrap_command() -> None:
    """Everything is unshared, four folders can be written, Python be read, nothing else."""
    command = Bubblewrap("/usr/bin/bwrap", (NO_NESTING,)).command(["python"], FOLDERS)
    assert command[0] == "/usr/bin/bwrap"
    assert command[-2:] == ["--", "python"]
    assert {"--unshare-all", "--die-with-parent", "--new-session", NO_NESTING} <= set(command)
    assert "--share-net" not in command
    assert command[command.index("--cap-drop") + 1] == "ALL"
    assert _pairs(command, "--bind") == {
        str(FOLDERS.work): "/mnt/data",
        str(FOLDERS.tmp): "/tmp",
        str(FOLDERS.shm): "/dev/shm",
        str(FOLDERS.sockets): "/run/kernel",
    }
    shown = {*_pairs(command, "--ro-bind"), *_pairs(command, "--ro-bind-try")}
    assert "/Users/me/.venv" in shown
    assert not shown & {"/", "/etc", "/home", "/root", "/var", "/run", "/etc/passwd", "/etc/shadow"}


def test_links_of_the_system_are_kept(tmp_path: Path) -> None:
    """/lib and its like are links where the system has links, and folders where it has folders."""
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "lib").mkdir()
    words = list(sandbox._system_binds(tmp_path))  # pyright: ignore[reportPrivateUsage]
    assert _pairs(words, "--symlink") == {"usr/bin": "/bin"}
    assert _pairs(words, "--ro-bind") == {str(tmp_path / "lib"): "/lib"}


def test_profile_denies_by_default() -> None:
    """The profile starts by denying everything, and allows no network but its own sockets."""
    lines = profile(FOLDERS, HOME).splitlines()
    assert lines[:2] == ["(version 1)", "(deny default)"]
    sockets = f'(subpath "{FOLDERS.sockets}")'
    assert [line for line in lines if "network" in line] == [
        f"(allow network-bind network-inbound (local unix-socket {sockets}))",
        f"(allow network-outbound (remote unix-socket {sockets}))",
    ]
    assert sum("mach-lookup" in line for line in lines) == 1
    assert not any("appleevent" in line or "job-creation" in line for line in lines)


def test_profile_hides_the_home() -> None:
    """Reading is allowed, then denied in homes, then allowed for what Python needs."""
    lines = profile(FOLDERS, Path("/elsewhere/me")).splitlines()
    everything = lines.index("(allow file-read*)")
    private = next(n for n, line in enumerate(lines) if line.startswith("(deny file-read*"))
    own = next(n for n, line in enumerate(lines) if line.startswith("(allow file-read* (subpath"))
    assert everything < private < own
    assert '(subpath "/Users")' in lines[private]
    assert '(subpath "/elsewhere/me")' in lines[private]
    assert '(subpath "/Users/me/.venv")' in lines[own]
    assert '(subpath "/Users/me")' not in lines[own]
    metadata = next(line for line in lines if "file-read-metadata" in line)
    assert '(literal "/Users/me")' in metadata
    assert "subpath" not in metadata


def test_profile_writes_only_its_folders() -> None:
    """Writing is allowed in four folders and to null devices; quotes in names stay harmless."""
    writes = [line for line in profile(FOLDERS, HOME).splitlines() if "file-write" in line]
    assert writes[1:] == [
        '(allow file-write* (subpath "/Users/me/my \\"work\\"") '
        f'(subpath "{FOLDERS.tmp}") (subpath "{FOLDERS.shm}") (subpath "{FOLDERS.sockets}"))'
    ]
    assert writes[0].startswith("(allow file-write-data (literal")


def test_profile_is_balanced() -> None:
    """Each rule is a closed expression."""
    for line in profile(FOLDERS, HOME).replace('\\"', "").splitlines():
        assert line.count("(") == line.count(")")
        assert line.count('"') % 2 == 0


def test_sandbox_exec_command() -> None:
    """The profile is given as an argument; folders keep their names."""
    command = SandboxExec().command(["python"], FOLDERS)
    assert command[:2] == ["/usr/bin/sandbox-exec", "-p"]
    assert command[2] == profile(FOLDERS, Path.home().resolve())
    assert command[3:] == ["python"]
    assert SandboxExec().inside(FOLDERS) is FOLDERS


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("exit 0", (NO_NESTING,)),
        (f'case "$*" in *{NO_NESTING}*) exit 1;; esac', ()),
    ],
)
def test_older_bubblewraps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, options: tuple[str, ...]
) -> None:
    """One that cannot forbid namespaces within is used without that."""
    program = _script(tmp_path / "bwrap", script)
    _install(monkeypatch, program)
    assert find_sandbox() == Bubblewrap(program, options)
    assert sandbox_problem() is None


def test_bubblewrap_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is installed and does not work is told from none, with what to try."""
    program = _script(tmp_path / "bwrap", "exit 1")
    _install(monkeypatch, program)
    with pytest.raises(UsageError, match=r"does not work here.*--unsafe-python.*user namespaces"):
        find_sandbox()
    _install(monkeypatch, None)
    assert "apt install bubblewrap" in str(sandbox_problem())


def test_mac_without_sandbox_exec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has its own; where it does not work, that is said, where it does, it is used."""
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    monkeypatch.setattr(sandbox, "SANDBOX_EXEC", tmp_path / "none")
    assert "--unsafe-python" in str(sandbox_problem())
    works = Path(_script(tmp_path / "sandbox-exec", 'test "$1" = -p && test "$3" = true'))
    monkeypatch.setattr(sandbox, "SANDBOX_EXEC", works)
    assert find_sandbox() == SandboxExec()
