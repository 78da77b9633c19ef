"""Leases: marks that keep what a mount, an ingest or a transfer uses from being collected. Layout: FORMAT.md §7."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from types import TracebackType

import msgspec

from spraydry.errors import SprayDryError, StoreReadOnly
from spraydry.format.digest import DIGEST_BYTES, digest
from spraydry.repository.repository import Repository

# A lease is written when its holder is so old, and again each time that much later: what ends before, as most ingests
# do, costs nothing. What was collected under such a one is stored again by it.
HEARTBEAT_S = 5.0
# So long must a lease have stayed as it is, by the observer's own clock, which must not have been restarted meanwhile.
DEAD_AFTER_S = 60.0
_ENDS_WITHIN_S = 1.0  # the caller may be in a batch for which the heartbeat waits
_MAX_BYTES = 1 << 20
_NAMES_TOGETHER = 10_000
_OBSERVED = "leases"

log = logging.getLogger("spraydry.leases")


class Held(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What a lease says. `beat` rises; `host` is the digest of the boot and process namespace in which process `pid`,
    begun at tick `started`, holds it; `what` is for people. Kept from collection are the versions made in the slots
    `pins`, all those that were there in slot `since` or came later (0: none), and while `writing`, what nothing names
    yet."""

    format: int
    beat: int
    host: bytes
    pid: int
    started: int
    what: str
    writing: bool
    pins: tuple[int, ...]
    since: int

    def keeps(self, made_in: int, removed_in: int) -> bool:
        """Whether it keeps the version made in a slot, of which the last name was removed in another."""
        return made_in in self.pins or 0 < self.since < removed_in


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Held)


class Lease:
    """Held by this process until it is closed, or nobody has it any more. Its methods may be called from any thread;
    none raises a StoreError: a store that cannot be written has no leases, and what is collected then is noticed by the
    log."""

    def __init__(
        self,
        repository: Repository,
        what: str,
        *,
        pins: Iterable[int] = (),
        since: int = 0,
        writing: bool = False,
        at_once: bool = False,
    ) -> None:
        self._repository = repository
        self._id = secrets.token_hex(8)
        self._held = Held(
            1, 0, _host(), os.getpid(), _started(os.getpid()), what, writing, tuple(sorted(set(pins))), since
        )
        self._lock = threading.RLock()
        self._waiting: list[bytes] = []  # frames, to be listed with the first heartbeat
        self._lists = 0
        self._written = False
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        if repository.read_only:
            return
        if self._held.pins or since or at_once:
            self._beat()
        self._thread = threading.Thread(
            target=_beats, args=(weakref.ref(self), self._closed), name="spraydry-lease", daemon=True
        )
        weakref.finalize(self, self._closed.set)
        self._thread.start()

    def pin(self, slots: Iterable[int]) -> None:
        """Keep the versions made in these slots, and no others. Read the log again after it: one of them may have been
        removed and collected before this was written."""
        with self._lock:
            self._held = msgspec.structs.replace(self._held, pins=tuple(sorted(set(slots))), since=0)
        if not self._repository.read_only:
            self._beat()

    def frames(self, names: Sequence[bytes]) -> None:
        """Keep frames that were stored just now, and that no version names yet. Belongs into the batch of the run that
        names them."""
        with self._lock:
            self._waiting += names
            if self._written:
                self._list()

    def _beat(self) -> None:
        # The store before the lock of this: a writer that calls `frames` in a batch takes them in that order, too.
        try:
            with self._repository.store.batch(), self._lock:
                if self._closed.is_set():
                    return
                self._held = msgspec.structs.replace(self._held, beat=self._held.beat + 1)
                self._repository.store.put("leases", self._id, _encoder.encode(self._held))
                self._list()
                self._written = True
        except StoreReadOnly:
            self._closed.set()
        except SprayDryError as error:
            log.debug("lease %s cannot be written: %s", self._id, error)

    def _list(self) -> None:
        while self._waiting:
            part = self._waiting[:_NAMES_TOGETHER]
            try:
                self._repository.store.put("leases", f"{self._id}.{self._lists:08}", b"".join(part))
            except StoreReadOnly:
                return
            del self._waiting[: len(part)]
            self._lists += 1

    def close(self) -> None:
        """Let go: what it kept may be collected."""
        self._closed.set()
        with self._lock:  # a heartbeat that is just writing ends first, and none comes after it
            written = self._written
        if written:  # else there is nothing to take away, for which a busy store would be waited for
            with suppress(SprayDryError), self._repository.store.batch(), self._lock:
                self._written = False
                _delete(self._repository, self._id)
        if self._thread is not None:
            self._thread.join(_ENDS_WITHIN_S)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _beats(held: weakref.ref[Lease], closed: threading.Event) -> None:
    """Beat for a lease until it is closed. Of one that was dropped what is in the store dies within DEAD_AFTER_S."""
    while not closed.wait(HEARTBEAT_S):
        lease = held()
        if lease is None:
            return
        lease._beat()
        del lease


@contextmanager
def hold(
    repository: Repository,
    what: str,
    *,
    pins: Iterable[int] = (),
    since: int = 0,
    writing: bool = False,
    at_once: bool = False,
) -> Iterator[Lease]:
    """Inside, what the lease keeps is not collected: versions made in the slots `pins`, even when they are removed; all
    that were there in slot `since` or came later; and when `writing`, what nothing names yet. `what` tells people who
    holds it. What pins nothing is written after HEARTBEAT_S, or `at_once`.

    Never a lock: it spares its holder errors, and safety comes from the log alone. After taking it, read the log again
    before relying on what it pins.
    """
    with Lease(repository, what, pins=pins, since=since, writing=writing, at_once=at_once) as lease:
        yield lease


def heeded(repository: Repository) -> dict[str, Held]:
    """The leases that are held, as far as can be told, by their ids. Forgets those that are not: when their process on
    this machine has ended, or when they stayed as they are for DEAD_AFTER_S."""
    before = _observed(repository)
    now, boot = time.monotonic(), _host()
    seen: dict[str, tuple[bytes, bytes, float]] = {}
    found: dict[str, Held] = {}
    names = [stored.name for stored in repository.store.list("leases") if stored.size <= _MAX_BYTES]
    ids = [name for name in names if "." not in name]
    dead = {name.partition(".")[0] for name in names} - set(ids)  # lists of one that was removed while it wrote
    for name, value in repository.store.get_many("leases", ids):
        if value is None:
            continue
        mark, since, observer = digest(value), now, boot
        if (old := before.get(name)) is not None and old[:2] == (mark, boot) and old[2] <= now:
            since = old[2]
        try:
            held = _decoder.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            held = Held(1, 0, b"", 0, 0, "something newer", True, (), 1)  # then it keeps what it can
        if now - since > DEAD_AFTER_S or (held.host == boot and _started(held.pid) != held.started):
            dead.add(name)
        else:
            found[name] = held
            seen[name] = (mark, observer, since)
    if not repository.catalog.database.read_only and seen != before:
        repository.catalog.remember(_OBSERVED, msgspec.msgpack.encode(seen))
    if not repository.read_only:
        with suppress(SprayDryError):
            for name in dead - found.keys():
                _delete(repository, name)
    return found


def kept_frames(repository: Repository, ids: Iterable[str]) -> Iterator[bytes]:
    """The frames which these leases list, some perhaps several times."""
    wanted = set(ids)
    lists = [stored.name for stored in repository.store.list("leases") if stored.name.partition(".")[0] in wanted]
    for name, value in repository.store.get_many("leases", [name for name in lists if "." in name]):
        for at in range(0, len(value or b"") // DIGEST_BYTES * DIGEST_BYTES, DIGEST_BYTES):
            assert value is not None, name
            yield value[at : at + DIGEST_BYTES]


def _delete(repository: Repository, name: str) -> None:
    lists = [stored.name for stored in repository.store.list("leases", name) if stored.name.startswith(name + ".")]
    repository.store.delete("leases", [name, *lists])


def _observed(repository: Repository) -> dict[str, tuple[bytes, bytes, float]]:
    """By lease: the digest of its value when it was seen first, the observer's host, and its monotonic clock then."""
    remembered = repository.catalog.state(_OBSERVED)
    try:
        return msgspec.msgpack.decode(remembered, type=dict[str, tuple[bytes, bytes, float]]) if remembered else {}
    except msgspec.MsgspecError:
        return {}


@cache
def _host() -> bytes:
    """What two processes share that see each other's process numbers, until the machine is started again."""
    told = []
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        told.append(file.read().strip())
    with suppress(OSError):
        told.append(os.readlink("/proc/self/ns/pid"))
    return digest(" ".join(told).encode()) if len(told) == 2 else secrets.token_bytes(DIGEST_BYTES)


def _started(pid: int) -> int:
    """When a process began, in ticks since the machine did; 0 where there is none of that number."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
