"""What the options before every verb said, and the repository they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import spraydry

if TYPE_CHECKING:
    from spraydry.repository.repository import Repository


@dataclass
class Options:
    """The options every verb takes; set by the launcher before the verb runs."""

    repo: str | None = None
    debug: bool = False


options = Options()


def repository_url() -> str:
    """The path or URL of the repository: --repo, else $SPRAYDRY_REPO, else the one in the XDG data directory."""
    return options.repo or spraydry.default_url()


def open_repository(*, create: bool = False, read_only: bool = True) -> Repository:
    """The repository of this run. Verbs that only look leave `read_only` as it is: that works on any medium."""
    return spraydry.open(repository_url(), create=create, read_only=read_only)
