"""Which chunks can be had: from some frame that is not known to be damaged, or from a damaged one all the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from spraydry.errors import SprayDryError
from spraydry.format.entry import Subtree
from spraydry.format.tree import Tree
from spraydry.format.tree_page import Page
from spraydry.repository.repository import Repository


class Sound:
    """The chunks of a repository of which `bad_frames` are damaged or gone, each with the chunks that are whole in it
    all the same. What is only in condemned frames counts as lost: these go, and nobody looks at them. Blocks; for one
    thread."""

    def __init__(self, repository: Repository, bad_frames: Mapping[bytes, Collection[bytes]]) -> None:
        self.repository = repository
        self.bad_frames = bad_frames
        self._condemned = repository.condemned()
        self._lost_pages: dict[bytes, str] = {}

    def unsound(self, names: Sequence[bytes]) -> dict[bytes, str]:
        """Those chunks that can be had from no frame, and why."""
        catalog, bad = self.repository.catalog, self.bad_frames
        found = {}
        for name in set(names) if bad else set(names) - catalog.chunks.known(names):
            places = [place for place in catalog.chunks.locate(name) if place.frame not in self._condemned]
            if not places:
                found[name] = "is in no frame"
            elif all(place.frame in bad and name not in bad[place.frame] for place in places):
                found[name] = f"is only in damaged frames ({', '.join(place.frame.hex() for place in places)})"
        return found

    def read(self, name: bytes) -> memoryview:
        """A chunk, verified. Raises as reading it does."""
        return self.repository.read_chunk(name)

    def page(self, name: bytes) -> Page:
        """A tree page. Raises as reading it does."""
        return self.repository.page(name)

    def tree(self, subtree: Subtree) -> Tree:
        """A directory, for reading."""
        return Tree(subtree, self.page)

    def forget_pages(self) -> None:
        """Look again for tree pages that could not be had: they may be there now."""
        self._lost_pages.clear()

    def lost_page(self, name: bytes) -> str | None:
        """Why a tree page cannot be had; None if it can. Raises StoreUnavailable where it might be later."""
        if name in self._lost_pages:
            return self._lost_pages[name]
        why = self.unsound([name]).get(name)
        if why is None:
            try:
                self.page(name)
                return None
            except SprayDryError as error:
                if error.retryable:
                    raise
                why = f"cannot be had: {error}"
        self._lost_pages[name] = why
        return why
