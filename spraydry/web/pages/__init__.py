"""The pages of a repository, for people: what it holds, how it came to be, where its space goes."""

from spraydry.web.pages.browse import browse
from spraydry.web.pages.index import index
from spraydry.web.pages.page import asked, trouble, wanted
from spraydry.web.pages.routes import routes

__all__ = ["asked", "browse", "index", "routes", "trouble", "wanted"]
