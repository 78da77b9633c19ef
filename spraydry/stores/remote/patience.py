"""How long servers that answered once and went away are waited for, as one does that is started anew."""

from __future__ import annotations

import logging
import math
import os
import random
import threading
import time

from spraydry.errors import UsageError
from spraydry.stores.remote.server import Busy
from spraydry.stores.shared.exchange import Away

VARIABLE = "SPRAYDRY_WAIT_S"
_DEFAULT_S = 30.0
_FIRST_S, _LONGEST_S = 0.1, 2.0  # between two tries
_TELL_S = 2.0

interrupted = threading.Event()  # whoever ends this process sets it: nobody waits then

log = logging.getLogger("spraydry.remote.waiting")


def wanted_s() -> float:
    """What $SPRAYDRY_WAIT_S says, else 30 s. Raises UsageError."""
    said = os.environ.get(VARIABLE)
    try:
        seconds = _DEFAULT_S if said is None else float(said)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UsageError(f"${VARIABLE} is to be a number of seconds, 0 for not to wait for a server that went away")
    return seconds


class Patience:
    """Blocks; threads share it. Once nobody answered for `away_s`, calls fail at their first try until somebody does:
    so a verb waits once, and not for each of its requests."""

    def __init__(self, where: str) -> None:
        """`where` is told whoever watches, when it is long."""
        self.away_s = 0.0
        self._where = where
        self._lock = threading.Lock()
        self._since_s: float | None = None  # when the first try failed since somebody answered
        self._told = False

    def answered(self) -> None:
        """Somebody did."""
        if self._since_s is not None:
            with self._lock:
                self._since_s, self._told = None, False

    def wait(self, error: Away, failed_s: float, tries: int) -> None:
        """Wait until the next try of a call that failed `tries` times, the first time at `failed_s` (monotonic). Raises
        the error where there is to be none."""
        now_s = time.monotonic()
        with self._lock:
            if self._since_s is None:
                self._since_s = failed_s
            left_s = self.away_s - (now_s - min(self._since_s, failed_s))
            if left_s <= 0 or interrupted.is_set():
                raise error
            longest_s = min(_LONGEST_S, _FIRST_S * 2.0 ** min(tries - 1, 60))
            wait_s = max(longest_s * random.uniform(0.5, 1.0), error.after_s if isinstance(error, Busy) else 0.0)
            wait_s = min(wait_s, left_s)
            tell = not self._told and now_s + wait_s - self._since_s > _TELL_S
            self._told = self._told or tell
        if tell:
            log.info("waiting for %s (for up to %g s)", self._where, self.away_s)
        interrupted.wait(wait_s)
