"""Writing chunks: deduplicated, gathered into frames by class, encoded in threads while others are stored."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from spraydry.errors import StoreError, StoreFull
from spraydry.format import frame as frames
from spraydry.format.digest import Buffer
from spraydry.parallel import default_threads
from spraydry.repository.dictionaries import Choice, keep
from spraydry.repository.leases import Lease
from spraydry.repository.repository import Repository
from spraydry.repository.storer import Named, Storer

# Measured on 14 versions of a source tree (604 MB), ordered by near directories and names: the whole repository has
# 25.9 MB with frames of 768 KiB, 24.8 with 1 MiB, 24.2 with 1.25 MiB; a reader of one small file decodes a whole frame,
# half a millisecond at 1 MiB.
FRAME_TARGET_BYTES = 1 << 20
# Chunks of a file that has several fill smaller frames: they are alike within one as well, and a program that reads
# 4 KiB somewhere in the file waits for a whole frame (p99 in a file of 1 GiB: 4.6 ms with frames of 1 MiB).
PART_TARGET_BYTES = 256 << 10
_BATCH_BYTES = 8 << 20
_RUN_BYTES = _BATCH_BYTES  # with each batch: on a full disk there is no room left to say later what was stored
# Far away, a batch is stored while the next is made (at 20 ms of latency in two thirds of the time), and is larger, for
# it ends with round trips in which little is on its way. On this machine the two would only take turns: no file system
# was faster for it, and SQLite in memory slower. Runs are written more rarely there, for each waits for its frames:
# what a killed ingest stored since the last is stored again.
_FAR_S, _FAR_TIMES, _FAR_RUN_TIMES = 0.005, 2, 8
_ASKED_CHUNKS = 128
_ASKED_BYTES = 1 << 20


@dataclass
class Written:
    """What a writer did, in bytes and counts."""

    chunks: int = 0
    plain_bytes: int = 0
    frames: int = 0
    stored_bytes: int = 0
    known_chunks: int = 0
    known_bytes: int = 0


@dataclass
class _Open:
    """A frame being filled."""

    chunks: list[Buffer] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)
    plain_bytes: int = 0


class Writer:
    """Takes chunks; not thread-safe. Frames are encoded in threads of its own, and stored by a Storer in another one.

    What was added counts as known from then on; after a crash what was not yet published by an index run is
    unreferenced, no more: there is a run for each `run_bytes` of frames. With `dry_run` nothing is stored, only
    counted. At most `ahead` frames wait or are encoded at a time, one batch of encoded ones is collected, and one is
    on its way to the store: that bounds memory.
    """

    def __init__(
        self,
        repository: Repository,
        level: int = frames.DEFAULT_LEVEL,
        target_bytes: int = FRAME_TARGET_BYTES,
        threads: int | None = None,
        dictionaries: dict[str, bytes] | None = None,
        dry_run: bool = False,
        lease: Lease | None = None,
        run_bytes: int | None = None,
    ) -> None:
        self.repository = repository
        self.level = level
        self.target_bytes = target_bytes
        self.written = Written()
        self._dry_run = dry_run
        threads = threads or default_threads()
        self._choice = Choice(repository, dictionaries, trials=not dry_run)
        self._ahead = 2 * threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="spraydry-encode")
        self._open: dict[tuple[str, bool], _Open] = {}
        self._waiting: deque[tuple[list[bytes], Future[frames.Encoded]]] = deque()
        self._encoded: list[Named] = []
        self._encoded_bytes = 0
        self._far = repository.store.traits.round_trip_s > _FAR_S
        self._batch_bytes = (_FAR_TIMES if self._far else 1) * _BATCH_BYTES
        # Until it is closed, what it stored is not collected, though no version names it yet.
        # A lease that is given is its owner's.
        self._own = None if dry_run or lease else Lease(repository, "writing", writing=True)
        self._lease = lease or self._own
        if run_bytes is None:
            run_bytes = (_FAR_RUN_TIMES if self._far else 1) * _RUN_BYTES
        self._storer = Storer(repository, run_bytes, None if dry_run else self._lease)
        self._pending: set[bytes] = set()
        self._asked: list[tuple[bytes, Buffer, str, bool]] = []  # added, but not yet looked up
        self._asked_bytes = 0
        self._catalog_empty = repository.catalog.chunks.is_empty()
        self._kept: set[bytes] = set()  # dictionaries that are known to be there

    def unknown(self, names: Iterable[bytes]) -> set[bytes]:
        """Those chunks that are stored nowhere yet, neither by this writer nor before."""
        fresh = [name for name in dict.fromkeys(names) if name not in self._pending]
        if self._catalog_empty or not fresh:
            return set(fresh)
        missing = set(fresh) - self.repository.catalog.chunks.known(fresh)
        return missing - self.repository.vouch(missing) if missing else missing

    def add(self, name: bytes, plain: Buffer, frame_class: str, known: bool | None = None, part: bool = False) -> None:
        """Store a chunk unless it is known; `part` of a file that has several. `known` spares the look-up after
        `unknown`; otherwise chunks are looked up many at a time: one by one, the tree pages of 94,000 files took 2.5 s
        of an ingest of 8."""
        if known is not None:
            self._add(name, plain, frame_class, known, part)
            return
        self._asked.append((name, plain, frame_class, part))
        self._asked_bytes += len(plain)
        if len(self._asked) >= _ASKED_CHUNKS or self._asked_bytes >= _ASKED_BYTES:
            self._answer()

    def add_frame(self, named: Named, dictionary: frames.Dictionary | None) -> None:
        """Store a frame as it is, encoded elsewhere and verified by the caller, also where its chunks are known; and
        before it the dictionary it needs."""
        if dictionary is not None and dictionary.digest not in self._kept:
            self._land()  # two threads that write could wait for each other
            keep(self.repository, dictionary)
            self._kept.add(dictionary.digest)
        lengths = named.frame.header.lengths
        self._pending.update(named.chunks)
        self.written.chunks += len(lengths)
        self.written.plain_bytes += sum(lengths)
        self._gather(named)

    def _answer(self) -> None:
        asked, self._asked, self._asked_bytes = self._asked, [], 0
        unknown = self.unknown(name for name, *_ in asked)
        for name, plain, frame_class, part in asked:
            self._add(name, plain, frame_class, name not in unknown, part)

    def _add(self, name: bytes, plain: Buffer, frame_class: str, known: bool, part: bool) -> None:
        if known or name in self._pending:
            self.written.known_chunks += 1
            self.written.known_bytes += len(plain)
            return
        line, target_bytes = (frame_class, part), self.target_bytes
        if part:
            target_bytes = min(target_bytes, PART_TARGET_BYTES)
        filling = self._open.get(line)
        if filling is None:
            filling = self._open[line] = _Open()
        elif filling.plain_bytes + len(plain) > target_bytes:
            self._close(line)
            filling = self._open[line] = _Open()
        filling.chunks.append(plain)
        filling.names.append(name)
        filling.plain_bytes += len(plain)
        self._pending.add(name)
        self.written.chunks += 1
        self.written.plain_bytes += len(plain)
        if filling.plain_bytes >= target_bytes or len(filling.names) >= frames.MAX_CHUNKS:
            self._close(line)

    def _close(self, line: tuple[str, bool]) -> None:
        filling = self._open.pop(line)
        if self._choice.due:
            self._land()  # it stores a dictionary: two threads that write could wait for each other
            self._choice.settle()
        future = self._pool.submit(self._choice.encode, filling.chunks, line[0], self.level)
        self._waiting.append((filling.names, future))
        while len(self._waiting) > self._ahead:
            self._take()

    def _take(self) -> None:
        names, future = self._waiting.popleft()
        self._gather(Named(names, future.result()))

    def _gather(self, named: Named) -> None:
        self._encoded.append(named)
        self._encoded_bytes += len(named.frame.stored)
        if self._encoded_bytes >= self._batch_bytes:
            self._store(publish=False)

    def _store(self, publish: bool) -> None:
        self._land()
        batch, self._encoded, self._encoded_bytes = self._encoded, [], 0
        self._storer.store(batch, publish)
        if not self._far:
            self._land()

    def _land(self) -> None:
        """Wait until the batch that is on its way is durable."""
        stored = self._storer.landed()
        if stored is None:
            return
        self.written.frames += stored.frames
        self.written.stored_bytes += stored.bytes
        if stored.published:
            self._catalog_empty = False
            # The index knows the others from now on; what is not stored yet must stay known here.
            self._pending = {name for filling in self._open.values() for name in filling.names}
            self._pending.update(name for names, _ in self._waiting for name in names)
            self._pending.update(name for names, _ in self._encoded for name in names)

    def keep(self) -> None:
        """Publish what was stored, before giving up, so that it need not be stored again. After a failure to store that
        is what was durable before."""
        if self._dry_run:
            return
        with suppress(StoreFull):
            self._land()
        if self._storer.broken:
            self._storer.publish()
        else:
            self.finish()

    def finish(self) -> Written:
        """Store and publish all that was added; everything is durable when it returns. More may be added after.

        Raises StoreError when storing failed before: what was added since the last success is given up.
        """
        if self._storer.broken:
            raise StoreError("storing failed before; nothing more can be added")
        self._answer()
        for line in list(self._open):
            self._close(line)
        while self._waiting:
            self._take()
        self._store(publish=True)
        self._land()
        if not self._dry_run:
            self._choice.finish()
        return self.written

    def close(self) -> None:
        """Stop its threads; what was not finished is given up."""
        for _, future in self._waiting:
            future.cancel()
        self._pool.shutdown(wait=True)
        self._storer.close()
        if self._own is not None:
            self._own.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
