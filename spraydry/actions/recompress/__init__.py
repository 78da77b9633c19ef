"""Recompressing: stored frames encoded anew with today's dictionaries and level, small ones merged."""

from spraydry.actions.recompress.recompress import Recompressed, recompress

__all__ = ["Recompressed", "recompress"]
