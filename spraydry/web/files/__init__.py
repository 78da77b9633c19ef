"""Files by path: `/ROOT@VERSION/path`, whole, in parts, as listings and as archives."""

from spraydry.web.files.answer import respond_file
from spraydry.web.files.route import routes

__all__ = ["respond_file", "routes"]
