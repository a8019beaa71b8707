"""A line that says what is under way and then vanishes; nothing where there is no terminal."""

from __future__ import annotations

import time

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

__all__ = ["PassingLine"]

_REDRAWS_PER_SECOND = 4


class PassingLine:
    """At most one line, with the seconds since it began."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._what, self._detail, self._begun = "", "", 0.0

    def show(self, what: str, detail: str = "") -> None:
        """Something is under way; `detail` may change while it is."""
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            return
        self._detail = detail
        if what != self._what or self._live is None:
            self._what, self._begun = what, time.monotonic()
        if self._live is None:
            self._live = Live(
                self,
                console=self._console,
                transient=True,
                refresh_per_second=_REDRAWS_PER_SECOND,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start(refresh=True)

    def clear(self) -> None:
        """Nothing is under way."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The text as it is now, in one line."""
        seconds = time.monotonic() - self._begun
        text = f"{self._what} ... {self._detail} {seconds:.0f} s".replace("  ", " ")
        yield Text(text, style="dim", overflow="ellipsis", no_wrap=True)
