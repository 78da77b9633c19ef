"""Hoards: single files under keys, put, read, listed, deleted, one by one or several in a transaction."""

from spraydry.actions.hoard.checkpoints import checkpoint, tree_of
from spraydry.actions.hoard.commit import commit_changes
from spraydry.actions.hoard.days import Day, days
from spraydry.actions.hoard.files import Source, store_file
from spraydry.actions.hoard.history import Event, key_history
from spraydry.actions.hoard.hoard import Hoard
from spraydry.actions.hoard.overview import HoardInfo, hoards
from spraydry.actions.hoard.revive import revive
from spraydry.actions.hoard.save import save
from spraydry.actions.hoard.small import SmallFiles
from spraydry.actions.hoard.together import Asked, change_together
from spraydry.actions.hoard.transaction import Transaction

__all__ = [
    "Asked",
    "Day",
    "Event",
    "Hoard",
    "HoardInfo",
    "SmallFiles",
    "Source",
    "Transaction",
    "change_together",
    "checkpoint",
    "commit_changes",
    "days",
    "hoards",
    "key_history",
    "revive",
    "save",
    "store_file",
    "tree_of",
]
