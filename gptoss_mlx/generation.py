"""What the consumer of a request has: its tokens as they come, its statistics, its cancel button.

It does not know the engine: it reads the events that the engine's thread puts into a sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gptoss_mlx.sequence import FinishReason, GenerationStats, Sequence, Token

__all__ = ["Generation", "OnPrefill"]

OnPrefill = Callable[[int, int], object]  # prompt tokens done, prompt tokens in all


class Generation:
    """The tokens of one completion, as they are drawn, for one consumer in any thread.

    Iterating gives ids; `tokens` gives them with their log-probabilities. When it is closed, or
    forgotten, the request is cancelled.
    """

    def __init__(self, sequence: Sequence, on_prefill: OnPrefill | None = None) -> None:
        self._sequence = sequence
        self._on_prefill = on_prefill
        self._is_read = False  # to its end

    def __iter__(self) -> Iterator[int]:
        """The ids; see `tokens`."""
        return (token.id for token in self.tokens())

    def tokens(self) -> Iterator[Token]:
        """Wait for each token until the last.

        Raises:
            GptOssError: why the request failed, after the tokens that it gave before.
        """
        try:
            while not self._is_read:
                event = self._sequence.events.get()
                if isinstance(event, Token):
                    yield event
                elif event is None:
                    self._is_read = True
                elif self._on_prefill is not None:
                    self._on_prefill(*event)
        finally:
            self.close()
        if self._sequence.error is not None:
            raise self._sequence.error

    def close(self) -> None:
        """Cancel the request, if it has not ended."""
        self._sequence.is_cancelled = True

    def __del__(self) -> None:
        self.close()

    @property
    def stats(self) -> GenerationStats:
        """Counts and times so far; the engine may be ahead of what was read."""
        return self._sequence.stats

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why it ended, once it has."""
        return self._sequence.finish_reason
