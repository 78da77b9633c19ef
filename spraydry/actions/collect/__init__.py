"""Collecting: what nothing names any more is condemned in the log, and deleted when the grace time is over."""

from spraydry.actions.collect.gc import DEFAULT_BELOW, DEFAULT_GRACE_NS, Collected, gc
from spraydry.actions.collect.marking import mark_hoards, mark_versions, unreadable

__all__ = ["DEFAULT_BELOW", "DEFAULT_GRACE_NS", "Collected", "gc", "mark_hoards", "mark_versions", "unreadable"]
