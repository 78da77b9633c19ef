"""Hoards: single files under keys, put, read, listed, deleted, one by one or several in a transaction."""

from spraydry.actions.hoard.checkpoints import checkpoint
from spraydry.actions.hoard.commit import commit_changes
from spraydry.actions.hoard.files import store_file
from spraydry.actions.hoard.history import Event, key_history
from spraydry.actions.hoard.hoard import Hoard
from spraydry.actions.hoard.together import Asked, change_together
from spraydry.actions.hoard.transaction import Transaction

__all__ = [
    "Asked",
    "Event",
    "Hoard",
    "Transaction",
    "change_together",
    "checkpoint",
    "commit_changes",
    "key_history",
    "store_file",
]
