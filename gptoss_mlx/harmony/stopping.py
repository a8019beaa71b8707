"""Stop strings: the answer ends before the first of them, and nothing follows.

A filter over what the parser gives. It reads the final channel only, so that neither a chain of
thought nor the arguments of a call end a completion by accident. It does not end the generation:
whoever feeds it does, once `stopped` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from gptoss_mlx.errors import UsageError
from gptoss_mlx.harmony.messages import Delta, Message

__all__ = ["StopFilter"]


class StopFilter:
    """Deltas and messages in, the same out as far as no stop string stands in an answer.

    Text that may be the beginning of a stop string is held back until it is decided. The deltas of
    an answer concatenate to its text before the place where the first stop string begins, and its
    message is cut there and has no ids. However the text comes in pieces, the result is the same.

    `stopped` is the string that was found, of several that begin at one place the shortest; None
    until then.

    Raises:
        UsageError: a stop string is empty.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if not all(stops):
            raise UsageError("a stop string must not be empty")
        self.stopped: str | None = None
        self._stops = sorted(stops, key=len)
        self._held = ""  # text of the open answer that is not decided
        self._given = 0  # how many characters of it are
        self._is_over = False  # the message that was cut has been given

    def push(self, events: Iterable[Delta | Message]) -> list[Delta | Message]:
        """Take what the parser found next, its `close` included; returns what of it remains."""
        return [remaining for event in events for remaining in self._filtered(event)]

    def _filtered(self, event: Delta | Message) -> list[Delta | Message]:
        if self._is_over:
            return []
        if not (event.is_shown and event.channel == "final"):
            return [event]
        if isinstance(event, Delta):
            self._held += event.text
            text = self._decided(len(self._held) - self._undecided())
            return [replace(event, text=text)] if text else []
        return self._finish(event)

    def _finish(self, message: Message) -> list[Delta | Message]:
        """The answer is complete, and with it all that was held."""
        text = self._decided(len(self._held))
        events: list[Delta | Message] = []
        if text:
            events.append(Delta(message.channel, message.recipient, text, message.role))
        if self.stopped is not None:
            message = replace(message, content=message.content[: self._given], ids=None)
            self._is_over = True
        self._given = 0
        return [*events, message]

    def _decided(self, end: int) -> str:
        """Take from the held text what is before `end`, or before the stop that begins there."""
        if self.stopped is not None:
            return ""
        found = [(self._held.find(stop), stop) for stop in self._stops if stop in self._held]
        start, stop = min(found, key=lambda place: place[0], default=(end, None))
        if start <= end:
            self.stopped, end = stop, start
        text, self._held = self._held[:end], self._held[end:]
        self._given += len(text)
        return text

    def _undecided(self) -> int:
        """How many of the last characters may be the beginning of a stop string, and not all."""
        return max(
            (
                n
                for stop in self._stops
                for n in range(1, min(len(stop), len(self._held) + 1))
                if self._held.endswith(stop[:n])
            ),
            default=0,
        )
