"""Files by path: `/ROOT@VERSION/path`, whole, in parts, as listings and as archives."""

from spraydry.web.files.answer import respond_file, validator
from spraydry.web.files.described import described
from spraydry.web.files.route import routes

__all__ = ["described", "respond_file", "routes", "validator"]
