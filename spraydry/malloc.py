"""Telling the C library's allocator how to give memory back; without effect where it is not glibc."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # glibc's numbers for mallopt


def large_apart(threshold_bytes: int, *, one_heap: bool = False) -> None:
    """Take what is at least so large from the system and give it back when it is freed, instead of leaving holes in the
    heap; `one_heap` for all threads. Costs a page fault for every 4 KiB of it. For the whole process, from now on."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        if one_heap:
            libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, threshold_bytes)
