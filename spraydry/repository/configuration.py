"""Which stores a repository lies on, as the small TOML text in its `config` namespace says. Layout: FORMAT.md §8."""

from __future__ import annotations

import json
import math
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

    `number` rises with every change: of two copies of this text, the higher one counts. `lost` is the number of the one
    in which a store was last given up as lost, 0 for never: what was on it may be gone, also the log's newest records.
    """

    number: int
    owner: str
    store: tuple[StoreEntry, ...]
    copies: int = 1
    copies_of: dict[str, int] = {}
    lost: int = 0

    def entry(self, name: str) -> StoreEntry:
        """A store by its name. Raises UsageError."""
        for one in self.store:
            if one.name == name:
                return one
        raise UsageError(f"there is no store {name!r}; there are: {', '.join(one.name for one in self.store)}")

    def with_stores(self, *stores: StoreEntry, **changes: object) -> Configuration:
        """The next configuration, of these stores (none given: of the same), and with other fields changed."""
        return msgspec.structs.replace(self, number=self.number + 1, store=stores or self.store, **changes)


def decode(value: bytes) -> Configuration:
    """The configuration a text says. Raises CorruptData."""
    if len(value) > MAX_TEXT_BYTES:
        raise CorruptData("the list of stores in the repository's config is impossibly long")
    try:
        found = msgspec.toml.decode(value, type=Configuration)
        check(found)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, UsageError) as error:
        raise CorruptData(
            f"the repository's list of stores (config/stores) cannot be read: {error} (mend it by hand, or name another"
            " of the stores with --repo; if a newer spraydry wrote it, install that)"
        ) from None
    return found


def check(found: Configuration) -> None:
    """Raises UsageError for one that cannot be."""
    if found.number < 1 or not 0 <= found.lost <= found.number:
        raise UsageError("`number` begins at 1, and `lost` is not above it")
    for copies in (found.copies, *found.copies_of.values()):
        if not 1 <= copies <= 100:
            raise UsageError(f"{copies} copies: the number must be from 1 to 100")
    seen: set[str] = set()
    for one in found.store:
        _check_entry(one)
        for what in {one.name, one.id} & seen:
            raise UsageError(f"two stores have the name or id {what}")
        seen |= {one.name, one.id}
    found.entry(found.owner)


def _check_entry(one: StoreEntry) -> None:
    if not _NAME.fullmatch(one.name):
        raise UsageError(f"not a name for a store: {one.name!r} (up to 64 letters, digits, and ._- within)")
    if not _ID.fullmatch(one.id):
        raise UsageError(f"{one.name}: an id has 32 hexadecimal digits, not {one.id!r}")
    if not one.url:
        raise UsageError(f"{one.name} has no url")
    if not 0 <= one.weight <= 1e9:
        raise UsageError(f"{one.name}: a weight is a number from 0 (nothing new goes there) up, not {one.weight:g}")
    if not 0 <= one.latency_ms < math.inf:
        raise UsageError(f"{one.name}: a latency is a number of milliseconds from 0 up, not {one.latency_ms:g}")
    for field in ("cache_size", "up", "down"):
        if (size := getattr(one, field)) and parse_bytes(size) < 1:
            raise UsageError(f"{one.name}: {field.replace('_', ' ')} must be above 0")


def encode(configuration: Configuration) -> bytes:
    """The text of a configuration. Raises UsageError for one that cannot be."""
    check(configuration)
    lines = [
        "# The stores of a spraydry repository. `spraydry store` changes this.",
        f"number = {configuration.number}",
        f"owner = {_text(configuration.owner)} # has the log",
        f"copies = {configuration.copies} # of each frame",
    ]
    if configuration.lost:
        lines.append(f"lost = {configuration.lost} # when a store was last given up as lost")
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
