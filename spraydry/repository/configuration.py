"""Which stores a repository lies on, as the small TOML text in its `config` namespace says. Layout: FORMAT.md §8."""

from __future__ import annotations

import json
import re

import msgspec

from spraydry.errors import CorruptData, UsageError
from spraydry.format.chunker import parse_bytes

MAX_TEXT_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_ID = re.compile(r"[0-9a-f]{32}")


class StoreEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One store: `url` as open_store takes it, `id` as its own config says, `weight` its share of new frames.

    `cache` is the URL of a local store that keeps up to `cache_size` of what is read from this one; `up`, `down` (bytes
    a second) and `latency_ms` hold it back. Sizes are written as everywhere: 10M, 1.5G.
    """

    name: str
    id: str
    url: str
    weight: float = 1.0
    cache: str = ""
    cache_size: str = "10G"
    up: str = ""
    down: str = ""
    latency_ms: float = 0.0


class Configuration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All stores; `owner` names the one that has the log, `copies` on how many of them each frame lies.

    `number` rises with every change: of two copies of this text, the higher one counts.
    """

    number: int
    owner: str
    store: tuple[StoreEntry, ...]
    copies: int = 1
    copies_of: dict[str, int] = {}

    def entry(self, name: str) -> StoreEntry:
        """A store by its name. Raises UsageError."""
        for one in self.store:
            if one.name == name:
                return one
        raise UsageError(f"there is no store {name!r}; there are: {', '.join(one.name for one in self.store)}")

    def with_entry(self, changed: StoreEntry) -> Configuration:
        """The next configuration, in which the store of that name is as given, or added."""
        known = any(one.name == changed.name for one in self.store)
        stores = tuple(changed if one.name == changed.name else one for one in self.store)
        return msgspec.structs.replace(self, number=self.number + 1, store=stores if known else (*stores, changed))


def decode(value: bytes) -> Configuration:
    """The configuration a text says. Raises CorruptData."""
    if len(value) > MAX_TEXT_BYTES:
        raise CorruptData("the list of stores in the repository's config is impossibly long")
    try:
        found = msgspec.toml.decode(value, type=Configuration)
        check(found)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, UsageError) as error:
        raise CorruptData(f"the list of stores in the repository's config cannot be read: {error}") from None
    return found


def check(found: Configuration) -> None:
    """Raises UsageError for one that cannot be."""
    names, ids = [one.name for one in found.store], [one.id for one in found.store]
    if len(set(names)) < len(names) or len(set(ids)) < len(ids) or found.owner not in names:
        raise UsageError("names and ids of stores must differ, and one of the stores must own the log")
    for one in found.store:
        if not _NAME.fullmatch(one.name):
            raise UsageError(f"not a name for a store: {one.name!r} (letters, digits, and ._- within)")
        if not _ID.fullmatch(one.id) or not one.url or not 0 <= one.weight <= 1e9 or one.latency_ms < 0:
            raise UsageError(f"store {one.name}: a weight is a number from 0 up, an id 32 hexadecimal digits")
        for size in (one.cache_size, one.up or "1", one.down or "1"):
            parse_bytes(size)
    copies = [found.copies, *found.copies_of.values()]
    if not all(1 <= number <= 100 for number in copies):
        raise UsageError("copies must be from 1 to 100")
    if found.number < 1:
        raise UsageError("a configuration's number begins at 1")


def encode(configuration: Configuration) -> bytes:
    """The text of a configuration. Raises UsageError for one that cannot be."""
    check(configuration)
    lines = [
        "# The stores of a spraydry repository. `spraydry store` changes this.",
        f"number = {configuration.number}",
        f"owner = {_text(configuration.owner)} # has the log",
        f"copies = {configuration.copies} # of each frame",
    ]
    if configuration.copies_of:
        lines += ["", "[copies_of] # by class of frame"]
        lines += [f"{_text(key)} = {number}" for key, number in sorted(configuration.copies_of.items())]
    for one in configuration.store:
        lines += ["", "[[store]]"]
        for field, value in msgspec.to_builtins(one).items():
            lines.append(f"{field} = {_text(value) if isinstance(value, str) else value}")
    return "\n".join([*lines, ""]).encode()


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # DEL aside, TOML escapes what JSON does
