"""Looking for lines in the files of all versions; every distinct content is read once."""

from spraydry.actions.grep.grep import Matched, grep
from spraydry.actions.grep.search import Line, Pattern

__all__ = ["Line", "Matched", "Pattern", "grep"]
