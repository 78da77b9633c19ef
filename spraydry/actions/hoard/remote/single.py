"""What a hoard behind servers and a transaction on it do alike: find, list and put single files, and what is told of
them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from spraydry.actions.hoard.remote.talk import SourceFailed, Talk
from spraydry.format.entry import FILE, Entry
from spraydry.repository.keys import Kept
from spraydry.stores.remote import hoards as wire


def find_remote(talk: Talk, key: str) -> Kept | None:
    """What a key names; None where it names nothing. Raises StoreErrors."""
    found = talk.find(key)
    return None if found is None else kept_of(found)


def listed(talk: Talk, prefix: str, after: str) -> Iterator[Kept]:
    """The keys that begin with `prefix` and come behind `after`, a page at a time. Raises StoreErrors."""
    while True:
        page = talk.page(prefix, after)
        yield from map(kept_of, page.files)
        if not page.more or not page.files:
            return
        after = page.files[-1].key


def put_remote(talk: Talk, source: Any, key: str, new: bool) -> Kept:
    """Let a key name what a stream gives; with `new` only where it names nothing. Raises as `caused`, KeyExists."""
    return caused(lambda: talk.put(key, source, new))


def caused(put: Callable[[], wire.File]) -> Kept:
    """What was put. Raises StoreErrors, and why its source could not be read as that was raised."""
    try:
        return kept_of(put())
    except SourceFailed as failed:
        assert failed.__cause__ is not None
        raise failed.__cause__ from None


def kept_of(file: wire.File) -> Kept:
    """A key and its file, as a server tells of them."""
    return Kept(file.key, entry_of(file.size, file.digest, file.put_ns))


def entry_of(size: int, name: str | None, put_ns: int) -> Entry:
    """What is known here of a file: its content is only its digest."""
    content = bytes.fromhex(name) if name is not None and size else None
    return Entry(b"", FILE, 0o644, 0, 0, *divmod(put_ns, 10**9), size, content, (), None)
