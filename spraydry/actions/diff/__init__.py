"""What differs between two versions, or two paths in them."""

from spraydry.actions.diff.diff import Change, diff
from spraydry.actions.diff.patch import patch
from spraydry.actions.diff.sides import Side, sides
from spraydry.actions.diff.summary import Counted, Summary, summed

__all__ = ["Change", "Counted", "Side", "Summary", "diff", "patch", "sides", "summed"]
