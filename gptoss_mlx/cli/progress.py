"""How long work goes on: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from gptoss_mlx.cli.common import styled

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from gptoss_mlx.hub import Manifest, RemoteFile
    from gptoss_mlx.installation import Observer

__all__ = ["byte_bars", "installing", "size_text"]

_NARROW = 80  # columns; below, a bar has no room
_STEP = 10  # percent, from one line to the next
_CACHED = "The Hub cannot be asked: this is what the cache knows of it."


@contextmanager
def installing() -> Generator[Observer]:
    """Who shows on stderr how an installation goes on."""
    if not styled(sys.stderr):
        yield _Lines()
        return
    with byte_bars() as progress:
        yield _Bars(progress)


def byte_bars() -> Progress:
    """Bars on stderr with bytes, speed and time left; none where it is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True, highlight=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        *[BarColumn(), DownloadColumn()][console.width < _NARROW :],
        *[TransferSpeedColumn(), TimeRemainingColumn()],
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)


@dataclass
class _Files:
    """Which files have come, as both ways of showing it count them."""

    finished: set[RemoteFile] = field(default_factory=set["RemoteFile"])
    total: int = 0

    def done(self, file: RemoteFile, position: int) -> int:
        """Bytes of all files, with so many of one of them."""
        return sum(other.size for other in self.finished - {file}) + position


class _Bars:
    """A bar for the file that is coming or being read, and one for all of them."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._files = _Files()
        self._tasks: dict[str, TaskID] = {}

    def planned(self, manifest: Manifest, missing: int) -> None:
        self._files.total = manifest.nbytes
        if manifest.is_cached:
            self.note(_CACHED)
        self._show("In all", manifest.nbytes - missing, manifest.nbytes)

    def receiving(self, file: RemoteFile, done: int) -> None:
        self._show(_title(file), done, file.size)
        self._show("In all", self._files.done(file, done), self._files.total)

    def checking(self, file: RemoteFile, done: int) -> None:
        self._drop(_title(file))
        self._show(f"Checking {_title(file)}", done, file.size)

    def finished(self, file: RemoteFile) -> None:
        self._drop(_title(file))
        self._drop(f"Checking {_title(file)}")
        self._files.finished.add(file)
        self._show("In all", self._files.done(file, file.size), self._files.total)

    def converting(self, done: int, total: int) -> None:
        self._drop("In all")
        self._show("Converting", done, total)
        if done >= total:
            self._progress.update(self._tasks["Converting"], description="Writing tokenizer")

    def note(self, text: str) -> None:
        self._progress.console.print(text, markup=False)

    def _show(self, title: str, done: int, total: int) -> None:
        if title not in self._tasks:
            self._tasks[title] = self._progress.add_task(title, total=total, completed=done)
        self._progress.update(self._tasks[title], completed=done)

    def _drop(self, title: str) -> None:
        if title in self._tasks:
            self._progress.remove_task(self._tasks.pop(title))


class _Lines:
    """A line for each large step, and for each file with tensors."""

    def __init__(self) -> None:
        self._files = _Files()
        self._percent = {"downloaded": 0, "converted": 0}

    def planned(self, manifest: Manifest, missing: int) -> None:
        self._files.total = manifest.nbytes
        have = manifest.nbytes - missing
        self._percent["downloaded"] = have * 100 // max(1, manifest.nbytes)
        here = f", {size_text(have)} of it here already" if have else ""
        if manifest.is_cached:
            click.echo(_CACHED, err=True)
        click.echo(
            f"{manifest.repo} ({manifest.source}): {size_text(manifest.nbytes)}{here}", err=True
        )

    def receiving(self, file: RemoteFile, done: int) -> None:
        self._step("downloaded", self._files.done(file, done), self._files.total)

    def checking(self, file: RemoteFile, done: int) -> None:
        pass

    def finished(self, file: RemoteFile) -> None:
        self._files.finished.add(file)
        if file.is_weights:
            click.echo(f"{file.name}: whole, and as it should be", err=True)

    def converting(self, done: int, total: int) -> None:
        self._step("converted", done, total)

    def note(self, text: str) -> None:
        click.echo(text, err=True)

    def _step(self, what: str, done: int, total: int) -> None:
        percent = done * 100 // max(1, total)
        if percent // _STEP > self._percent[what] // _STEP:
            self._percent[what] = percent
            click.echo(f"{percent}% {what}: {size_text(done)} of {size_text(total)}", err=True)


def _title(file: RemoteFile) -> str:
    """What a bar has room for."""
    return file.name.rpartition("/")[2]


def size_text(nbytes: int) -> str:
    """Bytes for people, in the units in which disks and downloads are counted."""
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:.1f} MB"
