"""Many values in one request: how many, in which groups, and taking the answer apart."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterable, Iterator, Sequence

from spraydry.errors import CorruptData, StoreUnavailable
from spraydry.stores.base import check_key
from spraydry.stores.remote import wire
from spraydry.stores.remote.server import Server
from spraydry.stores.remote.wire import Items, Kind, Names
from spraydry.stores.shared.exchange import TooLong

_TOGETHER_BYTES = 1 << 20  # that one request is to bring
_MOST_BYTES = 64 << 20  # that it may; one value may have more
_PART_BYTES = 256 << 10
_FIRST = 8
_FEWEST_TO_MEASURE = 4

Values = list[tuple[str, bytes | None]]


class Sizes:
    """How long the values of each namespace were lately, and so how many to ask for at a time. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._average_bytes: dict[str, float] = {}

    def at_a_time(self, namespace: str) -> int:
        """How many values to ask for in one request."""
        average = self._average_bytes.get(namespace)
        return _FIRST if average is None else max(1, int(_TOGETHER_BYTES / max(average, 1.0)))

    def note(self, namespace: str, sizes: Sequence[int]) -> None:
        """So long were some."""
        if sizes:
            with self._lock:
                now = sum(sizes) / len(sizes)
                before = self._average_bytes.get(namespace, now)
                weight = min(len(sizes) / (2 * _FEWEST_TO_MEASURE), 0.5)
                self._average_bytes[namespace] = before + weight * (now - before)


def read_values(path: str, namespace: str, names: Sequence[str], headers: dict[str, str], server: Server) -> Values:
    """The values of names, in their order, None for what is not there. Raises StoreErrors, TooLong."""
    body = wire.encode(Names(namespace=namespace, names=tuple(names)))

    def take(response: http.client.HTTPResponse) -> Values:
        found: Values = []
        items, came = Items(_MOST_BYTES), 0
        while part := response.read(_PART_BYTES):
            came += len(part)
            if came > _MOST_BYTES:
                raise TooLong
            for item in items.feed(part):
                if item.kind == Kind.FAILED:
                    raise wire.error_of(502, item.value, server.url)
                if len(found) == len(names) or item.name != names[len(found)]:
                    raise CorruptData("other names than were asked for")
                found.append((item.name, None if item.kind == Kind.ABSENT else item.value))
        if not items.ended or len(found) < len(names):
            raise CorruptData("the answer is not whole")
        return found

    try:
        return server.post(path, body, headers, take)
    except CorruptData as error:
        raise StoreUnavailable(f"{server.url} answers what cannot be read ({error}); try again") from None


def value_groups(
    namespace: str, values: Iterable[tuple[str, bytes]], most_bytes: int, most: int
) -> Iterator[list[tuple[str, bytes]]]:
    """Values in lists that take at most so many bytes in a stream, or are one value; of those of one
    name in a list the last. They are copied, for their buffers may be used again for the next. Raises ValueError for
    what is no key."""
    group: dict[str, bytes] = {}
    held = len(wire.END_ITEM)
    for name, value in values:
        check_key(namespace, name)
        size = wire.item_bytes(name, len(value))
        if group and (held + size > most_bytes or len(group) == most):
            yield list(group.items())
            group, held = {}, len(wire.END_ITEM)
        group[name] = bytes(value)
        held += size
    if group:
        yield list(group.items())


def without_repeats(groups: Iterator[list[tuple[str, bytes]]]) -> Iterator[Iterator[list[tuple[str, bytes]]]]:
    """The groups in stretches in which no two have a name in common: these may be sent at the same time. Each stretch
    is to be drawn before the next."""
    waiting = next(groups, None)

    def stretch() -> Iterator[list[tuple[str, bytes]]]:
        nonlocal waiting
        seen: set[str] = set()
        while waiting is not None:
            names = {name for name, _ in waiting}
            if not seen.isdisjoint(names):
                return
            seen |= names
            group, waiting = waiting, next(groups, None)
            yield group

    while waiting is not None:
        yield stretch()
