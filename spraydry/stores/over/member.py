"""One member of a spread: its store, whether it answers at present, how long it takes, and what it missed."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Literal, NamedTuple, Protocol, TypeVar

import msgspec

from spraydry.errors import CorruptData, StoreError, StoreFull, StoreReadOnly, StoreUnavailable, ValueNotFound
from spraydry.stores.base import Store, Stored, is_key

T = TypeVar("T")

LEFT_OUT_S = 10.0  # a member that failed, or has no room, is not asked again for so long
_FORGET_S = 60.0  # what was measured longer ago says nothing of now
_WEIGHT_OF_NEW = 0.2  # in the moving average
_MOST_ABANDONED = 32  # calls that hang in one member, each with a thread


class Missed(NamedTuple):
    """What a member is to be brought when it is back: the value itself is on another member."""

    kind: Literal["put", "delete"]
    namespace: str
    name: str

    def encoded(self) -> bytes:
        """As a queue keeps it."""
        return msgspec.msgpack.encode(tuple(self))

    @classmethod
    def decoded(cls, entry: bytes) -> Missed:
        """Raises CorruptData."""
        try:
            missed = cls(*msgspec.msgpack.decode(entry, type=tuple[Literal["put", "delete"], str, str]))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise CorruptData("an entry of the queue of what a store missed does not parse") from None
        if not is_key(missed.namespace, missed.name):
            raise CorruptData("the queue of what a store missed names what no store takes")
        return missed


class Queue(Protocol):
    """A durable queue, one for each member: entries in order, each under an index that rises and is never used again.

    What `write` took survives a crash. Raises StoreError; `read` also CorruptData, for an entry that is damaged.
    """

    def write(self, *entries: bytes) -> object:
        """Put entries behind all others, durably."""

    def indexes(self, after: int = -1) -> Iterator[int]:
        """The indexes greater than `after`, oldest first, lazily."""

    def read(self, index: int) -> bytes:
        """The entry of an index. Raises ValueNotFound."""

    def delete(self, *indexes: int) -> object:
        """Forget entries (at least one)."""

    def __len__(self) -> int: ...

    def close(self) -> object:
        """Let go of it."""


@dataclass(eq=False)
class Member:
    """A store of a spread. Blocks as its store does; threads may share it.

    `name` is what people call it, `id` (16 bytes) what placement knows it by; `store` is None where it could not be
    opened, and `error` says why. `weight` is its share of new frames. A Spread fills in `queue`, `clock` and
    `patience_s`.
    """

    name: str
    id: bytes
    store: Store | None
    weight: float = 1.0
    error: str | None = None
    queue: Queue | None = field(default=None, repr=False)
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    patience_s: float = field(default=30.0, repr=False)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._out_until_s = -math.inf
        self._no_room_until_s = -math.inf
        self._average_s: float | None = None
        self._measured_at_s = -math.inf
        self._abandoned = 0
        self._silent = False
        self._kind: type[StoreError] = StoreUnavailable

    # -- what it is like

    @property
    def up(self) -> bool:
        """Whether it is worth asking."""
        return self.store is not None and self.clock() >= self._out_until_s

    @property
    def answers(self) -> bool:
        """Whether it did so when it was last asked."""
        return self.store is not None and not self._silent

    @property
    def takes(self) -> bool:
        """Whether values may be written to it, as far as is known."""
        return self.up and not self.full

    @property
    def full(self) -> bool:
        """Whether it has no room, as far as is known, or cannot be written."""
        return self.clock() < self._no_room_until_s or (self.store is not None and self.store.read_only)

    @property
    def waiting(self) -> int:
        """How much it missed that waits for it."""
        return 0 if self.queue is None else len(self.queue)

    @property
    def local(self) -> bool:
        """Whether it lies on this machine."""
        return self.store is not None and self.store.location() is not None

    @property
    def distance(self) -> tuple[int, bool]:
        """What says which of two answers sooner: the moving average of its times, in powers of two so that those that
        are about equal count as equal, then whether it is elsewhere."""
        average_s = self._average_s
        if average_s is None or self.clock() - self._measured_at_s > _FORGET_S:
            average_s = 0.0 if self.store is None else self.store.traits.round_trip_s
        return round(math.log2(max(average_s, 0.001))), not self.local

    # -- using it

    def read(self, ask: Callable[[Store], T], inline: bool = False) -> T:
        """What the store answers. StoreUnavailable, without asking, while it is left out.

        A store that is elsewhere is given `patience_s`: no call can be taken back, so it goes on in a thread of its
        own, and what it says later is not waited for. `inline` asks in this thread: one that is inside a batch must
        see what it wrote.
        """
        store = self._store()
        if self.clock() < self._out_until_s:
            raise self.refusal
        began_s = time.perf_counter()
        try:
            answer = ask(store) if inline or self.local else self._patiently(store, ask)
        except ValueNotFound:
            self._answered(time.perf_counter() - began_s)
            raise
        except (StoreError, CorruptData) as error:
            self.failed(error, time.perf_counter() - began_s)
            raise self._named(error) from None
        self._answered(time.perf_counter() - began_s)
        return answer

    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        """What the store lists, lazily; errors as of `read`, also in the middle."""
        try:
            yield from self.read(lambda store: store.list(namespace, after), inline=True)
        except (StoreError, CorruptData) as error:
            if self.up:
                self.failed(error)
                error = self._named(error)
            self._silent = True  # even if it is only damaged: what it has is not known
            raise error from None

    def write(self, do: Callable[[Store], T]) -> T:
        """Write to the store, also while it is left out."""
        store = self._store()
        began_s = time.perf_counter()
        try:
            answer = do(store)
        except ValueNotFound:
            raise
        except (StoreError, CorruptData) as error:
            self.failed(error, time.perf_counter() - began_s)
            raise self._named(error) from None
        self.error, self._silent = None, False
        return answer

    def write_in_order(self, do: Callable[[Store], T]) -> T:
        """As `write`; StoreUnavailable, without trying, where what it missed before must be done first."""
        if not self.up or self.waiting:
            raise StoreUnavailable(f"{self.name}: {self.error or 'older values wait for it'}")
        return self.write(do)

    def failed(self, error: Exception, took_s: float = 0.0) -> None:
        """Take note of what it raised: it is left out for a while, or only not written to. One that was long in saying
        so is left out for longer: otherwise one that hangs would be waited for nearly all the time."""
        self.error = str(error)
        if isinstance(error, StoreError):
            self._kind = type(error)
        if isinstance(error, StoreFull | StoreReadOnly):
            self._no_room_until_s = self.clock() + LEFT_OUT_S
        elif isinstance(error, StoreError):
            self._out_until_s = self.clock() + max(LEFT_OUT_S, 2 * took_s)
            self._silent = True

    @property
    def refusal(self) -> StoreError:
        """Why it is not asked at present."""
        if self.store is not None and self.store.read_only:
            return StoreReadOnly(f"{self.name}: it was opened for reading only")
        return self._kind(f"{self.name}: {self.error or 'it was not opened'}")

    def miss(self, missed: Sequence[Missed]) -> bool:
        """Let that wait for it; False where there is no queue, and only `heal` will find it."""
        if self.queue is None:
            return False
        if missed:
            self.queue.write(*(each.encoded() for each in missed))
        return True

    def _store(self) -> Store:
        if self.store is None:
            raise self.refusal
        return self.store

    def _named(self, error: StoreError | CorruptData) -> StoreError | CorruptData:
        return type(error)(f"{self.name}: {error}")

    def _answered(self, took_s: float) -> None:
        self.error, self._silent = None, False
        with self._lock:
            average_s, now_s = self._average_s, self.clock()
            if average_s is None or now_s - self._measured_at_s > _FORGET_S:
                average_s = took_s
            self._average_s = average_s + _WEIGHT_OF_NEW * (took_s - average_s)
            self._measured_at_s = now_s

    def _patiently(self, store: Store, ask: Callable[[Store], T]) -> T:
        answers: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
        left = threading.Event()
        with self._lock:
            if self._abandoned >= _MOST_ABANDONED:
                raise StoreUnavailable(f"it has not answered {self._abandoned} calls")

        def call() -> None:
            try:
                answers.put((ask(store), None))
            except BaseException as error:
                answers.put((None, error))
            with self._lock:
                self._abandoned -= left.is_set()

        threading.Thread(target=call, name="spraydry-ask", daemon=True).start()
        try:
            answer, error = answers.get(timeout=self.patience_s)
        except Empty:
            with self._lock:
                if answers.empty():
                    self._abandoned += 1
                    left.set()
            raise StoreUnavailable(f"it did not answer within {self.patience_s:g} s") from None
        if error is not None:
            raise error
        return answer  # type: ignore[return-value]
