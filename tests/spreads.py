"""For tests of spreads: members that fail on demand, a clock that is set, frames, queues in memory and in a file."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from spraydry.errors import StoreError, ValueNotFound
from spraydry.format import frame as frames
from spraydry.format.digest import digest
from spraydry.stores.base import Store
from spraydry.stores.memory import MemoryStore
from spraydry.stores.over.member import LEFT_OUT_S, Member, Queue
from spraydry.stores.over.placement import Copies
from spraydry.stores.over.spread import Spread
from tests.faulty_store import FaultyStore


class MemoryQueue:
    """First in first out, in memory."""

    def __init__(self) -> None:
        self.entries: dict[int, bytes] = {}
        self._next = 0

    def write(self, *entries: bytes) -> None:
        for entry in entries:
            self.entries[self._next] = entry
            self._next += 1

    def indexes(self, after: int = -1) -> Iterator[int]:
        return iter([index for index in self.entries if index > after])

    def read(self, index: int) -> bytes:
        if index not in self.entries:
            raise ValueNotFound(f"nothing is at {index}")
        return self.entries[index]

    def delete(self, *indexes: int) -> None:
        assert indexes
        for index in indexes:
            self.entries.pop(index, None)

    def __len__(self) -> int:
        return len(self.entries)

    def close(self) -> None:
        pass


class FileQueue(MemoryQueue):
    """The same in a file of hex lines, written anew and synced at each change: survives kill -9."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        if os.path.exists(path):
            with open(path) as file:
                super().write(*(bytes.fromhex(line) for line in file))

    def write(self, *entries: bytes) -> None:
        super().write(*entries)
        self._save()

    def delete(self, *indexes: int) -> None:
        super().delete(*indexes)
        self._save()

    def _save(self) -> None:
        with open(self._path + ".new", "w") as file:
            file.writelines(entry.hex() + "\n" for entry in self.entries.values())
            file.flush()
            os.fsync(file.fileno())
        os.replace(self._path + ".new", self._path)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def pass_time(self) -> None:
        """As long as a member that failed is left out, and some."""
        self.now_s += LEFT_OUT_S + 1


NAMES = ("a", "b", "c", "d", "e")


def id_of(name: str) -> bytes:
    """The store id of the member of that name."""
    return digest(name.encode())[:16]


@dataclass
class Fleet:
    """A spread over stores in memory (or others) that fail on demand; the first is the owner."""

    count: int = 3
    copies: Copies = Copies()  # noqa: RUF009 (frozen)
    weights: dict[str, float] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    stores: dict[str, Store] = field(default_factory=dict)
    queues: dict[bytes, Queue] = field(default_factory=dict)
    patience_s: float = 30.0

    def __post_init__(self) -> None:
        for name in NAMES[: self.count]:
            self.stores.setdefault(name, MemoryStore())
        self.faulty = {name: FaultyStore(store) for name, store in self.stores.items()}
        for name in self.stores:
            self.queues.setdefault(id_of(name), MemoryQueue())
        self.spread = self.open()

    def open(self) -> Spread:
        """Another spread over the same stores, as another process has it."""
        members = [Member(name, id_of(name), store, self.weights.get(name, 1.0)) for name, store in self.faulty.items()]
        return Spread(
            members, next(iter(self.stores)), self.copies, self.queues, clock=self.clock, patience_s=self.patience_s
        )

    def take_down(self, name: str) -> None:
        self.faulty[name].rates["down"] = 1.0

    def bring_back(self, name: str) -> None:
        self.faulty[name].rates.pop("down", None)
        self.clock.pass_time()

    def holders(self, name: str, namespace: str = "frames") -> set[str]:
        """The members whose store has a value."""
        return {one for one, store in self.stores.items() if store.info(namespace, name) is not None}

    def empty(self, name: str) -> None:
        """The store is replaced by an empty one."""
        store = self.stores[name]
        for namespace in ("frames", "index", "dictionaries", "log", "frames~"):
            store.delete(namespace, [stored.name for stored in list(store.list(namespace))])

    def damage(self, name: str, value: str, namespace: str = "frames", cut: bool = False) -> None:
        """Flip a bit of a copy, or cut it in half."""
        store = self.stores[name]
        held = bytearray(store.get(namespace, value))
        held[len(held) // 2] ^= 4
        store.put(namespace, value, bytes(held[: len(held) // 2] if cut else held))


def frame(number: int, kind: str = "other", size: int = 300) -> tuple[str, bytes]:
    """The name and the bytes of a frame; the same for the same number."""
    encoded = frames.encode(
        [random.Random(number).randbytes(size)], kind, salt=random.Random(-1 - number).randbytes(16)
    )
    return encoded.name.hex(), encoded.stored


def held(store: Store, namespace: str, name: str) -> bytes | None:
    """What a store has, None for nothing; other errors get out."""
    try:
        return store.get(namespace, name)
    except ValueNotFound:
        return None


def error_of(store: Store, namespace: str, name: str) -> StoreError:
    """The error of a get that must fail."""
    try:
        store.get(namespace, name)
    except StoreError as error:
        return error
    raise AssertionError("it was there")
