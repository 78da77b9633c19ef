"""A bounded, ordered map over threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def default_threads() -> int:
    """The number of CPUs this process may run on."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # not on Linux
        return max(1, os.cpu_count() or 1)


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], threads: int | None = None, ahead: int | None = None
) -> Iterator[R]:
    """Yield `function(item)` for each item, in the order of the items, computed in up to `threads` threads.

    `items` is drawn by the thread that iterates; at most `ahead` (default: twice the threads) results are computed or
    waiting at any time, which is what bounds memory. An exception of the function is raised where its result would
    have come; whatever was not started then is not started any more.
    """
    threads = threads or default_threads()
    ahead = ahead or 2 * threads
    with ThreadPoolExecutor(threads, thread_name_prefix="spraydry") as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
