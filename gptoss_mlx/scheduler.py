"""Who runs next: requests wait, are prefilled by turns a chunk at a time, and decode together.

    waiting --admit--> prefilling --start--> running --end-->
       ^------------------preempt-----------------'

First come, first served, and between prompts that are being prefilled each in its turn, so that a
short one does not wait for a long one. It does not know the model, memory, or threads: when there
is no room the engine tells it so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from gptoss_mlx.sequence import Sequence, common_prefix

__all__ = ["Scheduler"]


class Scheduler:
    """The sequences of an engine by what they are doing.

    Args:
        max_running: sequences that are prefilled or decode at the same time.
    """

    def __init__(self, max_running: int) -> None:
        self.max_running = max_running
        self.waiting: deque[Sequence] = deque()
        self.prefilling: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self.waiting.append(sequence)

    def admit(self) -> None:
        """Let as many waiting sequences begin their prefill as may run."""
        while self.waiting and len(self.running) + len(self.prefilling) < self.max_running:
            self.prefilling.append(self.waiting.popleft())

    def next_prefill(self, reusable: Callable[[Sequence], int], chunk: int) -> Sequence | None:
        """Whose turn it is to prefill a chunk.

        A sequence that has not begun lets another go first whose prompt begins like its own, if it
        could then reuse at least a chunk more than now. Otherwise they begin as they came: one
        that there is no room for is not overtaken by shorter ones for ever.

        Args:
            reusable: how many tokens of a sequence are cached now.
            chunk: tokens.
        """
        fresh = sorted((s for s in self.prefilling if not s.computed), key=lambda s: s.submitted)
        first = next((s for s in fresh if not self._is_led(s, reusable, chunk)), None)
        for _ in range(len(self.prefilling)):
            sequence = self.prefilling[0]
            self.prefilling.rotate(-1)
            if sequence.computed or sequence is first:
                return sequence
        return None

    def start(self, sequence: Sequence) -> None:
        """Its prefill is done: it decodes with the others from now on."""
        self.prefilling.remove(sequence)
        self.running.append(sequence)

    def end(self, sequence: Sequence) -> None:
        """It is done, wherever it was."""
        for place in (self.waiting, self.prefilling, self.running):
            if sequence in place:
                place.remove(sequence)

    def requeue(self, sequences: Iterable[Sequence]) -> None:
        """Back to the head of the queue, in the same order: they must be prefilled again."""
        for sequence in reversed(list(sequences)):
            self.end(sequence)
            sequence.computed = 0
            self.waiting.appendleft(sequence)

    @property
    def all(self) -> list[Sequence]:
        """Every sequence that has not ended."""
        return [*self.running, *self.prefilling, *self.waiting]

    def _is_led(self, sequence: Sequence, reusable: Callable[[Sequence], int], chunk: int) -> bool:
        """Whether another prefill is about to compute a prefix of this one."""
        leaders = [s for s in self.prefilling if s is not sequence and s.computed]
        ahead = [(s.computed, common_prefix(s.tokens, sequence.tokens)) for s in leaders]
        most = max((common for computed, common in ahead if computed < common), default=0)
        return most > 0 and most - reusable(sequence) >= chunk
