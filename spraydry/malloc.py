"""Telling the C library's allocator how to give memory back; without effect where it is not glibc."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # glibc's numbers for mallopt


def large_apart(threshold_bytes: int, *, one_heap: bool = False) -> None:
    """Take what is at least so large from the system and give it back when it is freed, instead of leaving holes in the
    heap; `one_heap` for all threads. Costs a page fault for every 4 KiB of it. For the whole process, from now on."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        if one_heap:
            libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, threshold_bytes)


def one_heap(largest_bytes: int, spare_bytes: int) -> None:
    """One heap for all threads, for everything up to `largest_bytes`, which keeps so much that is free at its end: for
    who takes and gives back large pieces all the time, in many threads. Each would leave holes in a heap of its own,
    and getting pages from the system takes as long as filling them. For the whole process, from now on."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, largest_bytes)
        libc.mallopt(_M_TRIM_THRESHOLD, spare_bytes)
