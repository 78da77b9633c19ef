"""Copying versions from one repository to another: push and pull are the same with the sides swapped."""

from spraydry.actions.transfer.bundle import Bundled, bundle
from spraydry.actions.transfer.clone import clone_lazily, complete, update
from spraydry.actions.transfer.transfer import Transferred, check, transfer

__all__ = ["Bundled", "Transferred", "bundle", "check", "clone_lazily", "complete", "transfer", "update"]
