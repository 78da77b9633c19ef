"""Where this machine has seen repositories in folders: an empty folder there is a disk that is not mounted."""

from __future__ import annotations

import os

from spraydry.errors import StoreUnavailable
from spraydry.format.digest import digest
from spraydry.stores.base import Store, split_options

_FOLDERS = ("dir:", "segment:")


def _note(url: str) -> str | None:
    """The file that remembers a place; None for places that need none: a file that is gone was removed."""
    scheme = next((scheme for scheme in _FOLDERS if url.startswith(scheme)), None)
    if scheme is None:
        return None
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    path = url[len(scheme) :].removeprefix("//")
    if scheme == "segment:":
        path, _ = split_options(path)
    path = os.path.abspath(path)
    return os.path.join(state, "spraydry", "places", digest(os.fsencode(path)).hex()[:32])


def check_new(url: str) -> None:
    """Raises StoreUnavailable where a repository was seen at `url`: nothing is to be made anew there by itself."""
    note = _note(url)
    if note is not None and os.path.exists(note):
        raise StoreUnavailable(
            f"{url} held a repository and is empty or gone now: is its disk mounted? `spraydry init` makes a new one"
        )


def remember(url: str, store: Store) -> None:
    """Note that a repository lies at `url`."""
    note = _note(url)
    if note is None or store.location() is None or os.path.exists(note):
        return
    try:
        os.makedirs(os.path.dirname(note), mode=0o700, exist_ok=True)
        with open(note, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(url + "\n")
    except OSError:
        pass  # a home that cannot be written: then an unmounted disk is not told from a new place


def forget(url: str) -> None:
    """A new repository may be made at `url`."""
    note = _note(url)
    if note is not None:
        try:
            os.unlink(note)
        except OSError:
            pass  # it was not there
