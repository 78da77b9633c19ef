"""The listing of a store that is served by a web server: what lies in its log, index, dictionaries and config.

Of a log with packs (FORMAT.md §7) it names these, and only those slots that are in none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from spraydry.errors import CorruptData, FormatTooNew, StoreUnavailable
from spraydry.format.digest import digest
from spraydry.parallel import ordered_map
from spraydry.stores.base import Store, is_key
from spraydry.stores.shared.nesting import LEVELS

PACKS = "hoards"
NAME = "listing"  # beside the namespaces: the last part of its path or key
LISTED = ("log", "index", "dictionaries", "config", PACKS)
MAX_BYTES = 64 << 20

_PLAIN, _PACKED = 1, 2  # formats: without and with packs
_PACK = re.compile("log-[0-9]{12}-[0-9]{12}")
_FEW = 1000
_MOST_WRITTEN = 1000  # each after the first because somebody committed meanwhile
_HEAD = re.compile(rb"spraydry listing ([1-9][0-9]{0,5})\n")
_END = re.compile(rb"digest ([0-9a-f]{64})\n")
_END_BYTES = len("digest \n") + 64
_SIZE = re.compile("0|[1-9][0-9]{0,17}")


@dataclass(frozen=True)
class Listing:
    """`values`: of each listed namespace the names and sizes in bytes. `depths`: how deeply values may be nested, in
    the order in which to look; a namespace that is missing there has them directly below it."""

    values: dict[str, dict[str, int]]
    depths: dict[str, tuple[int, ...]]

    def depths_of(self, namespace: str) -> tuple[int, ...]:
        """The depths at which to look for a value."""
        return self.depths.get(namespace, (0,))


def write_listing(
    store: Store, write: Callable[[bytes], object], depths: dict[str, tuple[int, ...]] | None = None
) -> None:
    """What `flush()` does: make the listing of what `store` holds, and give it to `write`, which puts it under NAME,
    replacing what is there in one step. `depths` is for stores that nest values (stores.shared.nesting).

    Another machine may commit and write its listing between the two, which an older one then replaces: so the store is
    listed again, and what is not as it was written is written again. The last of all that write found all that was
    committed until then in what it wrote; who committed after that writes after that.
    """
    wanted = listing_of(store, depths)
    for _ in range(_MOST_WRITTEN):
        write(wanted)
        written, wanted = wanted, listing_of(store, depths)
        if wanted == written:
            return
    raise StoreUnavailable("the store's listing is never as it was written: does what lists it answer late?")


def listing_of(store: Store, depths: dict[str, tuple[int, ...]] | None = None) -> bytes:
    """The listing of what `store` holds now, encoded."""

    def sizes(namespace: str) -> dict[str, int]:
        return {name: size for name, size, _ in store.list(namespace)}

    # Packs before the log: what they hold is left out of it. The rest after it: what a slot needs was stored before
    # it, so that it is in what is listed after it.
    packs = {name: size for name, size in sizes(PACKS).items() if _PACK.fullmatch(name)}
    values = {PACKS: packs, "log": _not_packed(store, packs)}
    others = [namespace for namespace in LISTED if namespace not in values]
    values.update(zip(others, ordered_map(sizes, others, store.traits.concurrency), strict=True))
    return encode(Listing(values, depths or {}))


def _not_packed(store: Store, packs: Iterable[str]) -> dict[str, int]:
    """The slots that no pack holds, and the last that one does, with their sizes."""
    slots: dict[str, int] = {}
    after = 0
    for pack in sorted(packs):
        first, last = int(pack[4:16]), int(pack[17:])
        if first > after + _FEW:
            break
        for slot in range(after + 1, first):  # one that is longer than a pack
            if (found := store.info("log", f"{slot:012d}")) is not None:
                slots[found.name] = found.size
        after = max(after, last)
    behind = {name: size for name, size, _ in store.list("log", f"{max(after - 1, 0):012d}")}
    if after and f"{after:012d}" not in behind:  # what names itself a pack says nothing about the log
        return {name: size for name, size, _ in store.list("log")}
    return slots | behind


def encode(listing: Listing) -> bytes:
    """The bytes of a listing: lines of ASCII, the last with the digest of all before it."""
    lines = [f"spraydry listing {_PACKED if listing.values.get(PACKS) else _PLAIN}"]
    for namespace, depths in sorted(listing.depths.items()):
        lines.append(" ".join(["depths", namespace, *map(str, depths)]))
    for namespace in LISTED:
        lines += (
            f"value {namespace} {name} {size}" for name, size in sorted(listing.values.get(namespace, {}).items())
        )
    text = ("\n".join(lines) + "\n").encode()
    return text + b"digest " + digest(text).hex().encode() + b"\n"


def decode(value: bytes) -> Listing:
    """A listing from bytes nobody vouches for. Raises CorruptData, FormatTooNew."""
    if len(value) > MAX_BYTES:
        raise CorruptData(f"the store's listing is damaged: it has more than {MAX_BYTES} bytes")
    head = _HEAD.match(value)
    if head is None:
        raise CorruptData("the store's listing is damaged: it begins like something else")
    if int(head[1]) not in (_PLAIN, _PACKED):
        raise FormatTooNew("the store's listing was written by a newer spraydry: install a current one")
    text, end = value[:-_END_BYTES], _END.fullmatch(value[-_END_BYTES:])
    if end is None or digest(text).hex().encode() != end[1]:
        raise CorruptData("the store's listing is damaged, or only a part of it came: its digest does not match")
    listing = Listing({namespace: {} for namespace in LISTED}, {})
    try:
        for line in text.decode("ascii").split("\n")[1:-1]:
            _take(listing, line.split(" "))
    except ValueError:  # a UnicodeDecodeError is one
        raise CorruptData("the store's listing is damaged: it has a line that says nothing") from None
    if encode(listing) != value:
        raise CorruptData("the store's listing is damaged: its lines are not in order")
    return listing


def _take(listing: Listing, words: list[str]) -> None:
    """Raises ValueError for a line that cannot be one."""
    match words:
        case ["value", namespace, name, size] if (
            namespace in LISTED and is_key(namespace, name) and _SIZE.fullmatch(size)
        ):
            listing.values[namespace][name] = int(size)
        case ["depths", namespace, *depths] if is_key(namespace, "_") and depths:
            listing.depths[namespace] = tuple(map(_depth, depths))
        case _:
            raise ValueError(words)


def _depth(word: str) -> int:
    if len(word) == 1 and word in "0123456789" and int(word) <= LEVELS:
        return int(word)
    raise ValueError(word)
