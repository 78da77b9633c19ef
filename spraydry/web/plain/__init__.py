"""Handing off: whole plain files where a web server or an object store can send them, so that this process need not."""

from spraydry.web.plain.choice import handoff_of
from spraydry.web.plain.handoff import Handoff

__all__ = ["Handoff", "handoff_of"]
