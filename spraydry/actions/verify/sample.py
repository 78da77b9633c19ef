"""Samples: a part of the frames, those first whose proof is oldest, so that run after run all are looked at."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

from spraydry.errors import UsageError
from spraydry.format.chunker import parse_bytes
from spraydry.repository.proofs import Due
from spraydry.repository.repository import Repository

_TIME = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(s|min|h)")
_SECONDS = {"s": 1, "min": 60, "h": 3600}
# Frames that were found damaged are looked at again in each sample, so that it says so until they are repaired; of very
# many of them only so many, or nothing else would be looked at any more.
_MOST_DAMAGED = 1000


@dataclass(frozen=True)
class Sample:
    """How much to look at, at least one frame: a `fraction` (above 0, to 1) of the stored bytes, so many `bytes`, or
    for `seconds`. With `known_damaged` only what was found damaged the last time, all of it."""

    fraction: float | None = None
    bytes: int | None = None
    seconds: float | None = None
    known_damaged: bool = False

    @classmethod
    def parse(cls, text: str) -> Sample:
        """`5%`, `2G` or `30min` (s, min, h). Raises UsageError."""
        lean = text.strip()
        if match := _TIME.fullmatch(lean.lower()):
            return cls(seconds=float(match[1]) * _SECONDS[match[2]])
        if not lean.endswith("%"):
            try:
                return cls(bytes=parse_bytes(lean))
            except UsageError:
                raise UsageError(f"not a part: {text!r} (write 5%, or an amount such as 2G or 30min)") from None
        try:
            fraction = float(lean[:-1]) / 100
        except ValueError:
            raise UsageError(f"not a part: {text!r} (write 5%, or an amount such as 2G or 30min)") from None
        if not 0 < fraction <= 1:
            raise UsageError(f"a sample is a part of the frames, above 0% and up to 100%, not {text.strip()}")
        return cls(fraction=fraction)

    def budget_bytes(self, stored_bytes: int) -> int | None:
        """How many bytes to read of so many; None where time decides."""
        return round(self.fraction * stored_bytes) if self.fraction is not None else self.bytes


def sampled(repository: Repository, sample: Sample, began_s: int, stored_bytes: int) -> Iterator[Due]:
    """The frames of a sample, and before them those that were found damaged the last time.

    Where nothing can be remembered they are others at each second: a random part.
    """
    deadline_s = time.monotonic() + sample.seconds if sample.seconds is not None else None
    budget, spent = sample.budget_bytes(stored_bytes), 0
    for number, due in enumerate(repository.catalog.proofs.damaged()):
        if number == _MOST_DAMAGED and not sample.known_damaged:
            break
        yield due
    if sample.known_damaged:
        return
    proofs = repository.catalog.proofs
    following = proofs.due(began_s) if proofs.kept else _from_anywhere(repository, began_s)
    for number, due in enumerate(following):
        if number and ((budget is not None and spent >= budget) or (deadline_s and time.monotonic() >= deadline_s)):
            return
        yield due
        spent += due.stored


def _from_anywhere(repository: Repository, began_s: int) -> Iterator[Due]:
    """All frames, from another one on at each second."""
    first = random.Random(began_s).randrange(max(repository.catalog.frames_count(), 1))
    due = repository.catalog.proofs.due
    return chain(islice(due(began_s), first, None), islice(due(began_s), first))
