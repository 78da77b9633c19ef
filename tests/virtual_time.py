"""Time for modules under test that stands still until somebody sleeps: what they measure is what they waited for."""

from __future__ import annotations

from collections.abc import Callable


class VirtualTime:
    """Takes the place of a module's `time`. For one thread at a time."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    perf_counter = monotonic

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def spent(self, call: Callable[[], object]) -> float:
        """How many seconds passed in a call."""
        began_s = self.now_s
        call()
        return self.now_s - began_s
