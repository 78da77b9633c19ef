"""Writing chunks: deduplicated, gathered into frames by class, encoded in threads, stored with their index."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate

from spraydry.errors import StoreError
from spraydry.format import frame as frames
from spraydry.format.digest import Buffer, digest
from spraydry.format.run import FrameInfo, Row, encode_run
from spraydry.parallel import default_threads
from spraydry.repository.dictionaries import Choice
from spraydry.repository.frames import frame_info
from spraydry.repository.repository import Repository

# Measured on 14 versions of a source tree (604 MB), ordered by near directories and names: the whole repository has
# 25.9 MB with frames of 768 KiB, 24.8 with 1 MiB, 24.2 with 1.25 MiB; a reader of one small file decodes a whole frame,
# half a millisecond at 1 MiB.
FRAME_TARGET_BYTES = 1 << 20
# Chunks of a file that has several fill smaller frames: they are alike within one as well, and a program that reads
# 4 KiB somewhere in the file waits for a whole frame (p99 in a file of 1 GiB: 4.6 ms with frames of 1 MiB).
PART_TARGET_BYTES = 256 << 10
_BATCH_BYTES = 8 << 20
_RUN_BYTES = _BATCH_BYTES  # with each batch: on a full disk there is no room left to say later what was stored
# Far away, a batch is some round trips during which nothing else is stored: at 40 ms, SFTP kept a quarter of its rate.
_FAR_S, _FAR_TIMES = 0.005, 4
_RUN_ROWS = 100_000
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
    """Takes chunks; not thread-safe, its caller's thread does the storing, its own threads the encoding.

    Frames and the index rows that name them are stored in the same batch where store and catalog are one file, and in
    that order everywhere. What was added counts as known from then on; after a crash what was not yet published by an
    index run is unreferenced, no more. With `dry_run` nothing is stored, only counted. At most `ahead` frames wait or
    are encoded at a time: that bounds memory.
    """

    def __init__(
        self,
        repository: Repository,
        level: int = frames.DEFAULT_LEVEL,
        target_bytes: int = FRAME_TARGET_BYTES,
        threads: int | None = None,
        dictionaries: dict[str, bytes] | None = None,
        dry_run: bool = False,
    ) -> None:
        self.repository = repository
        self.level = level
        self.target_bytes = target_bytes
        self.written = Written()
        self._dry_run = dry_run
        self._broken = False
        self._finishing = False
        threads = threads or default_threads()
        self._choice = Choice(repository, dictionaries, trials=not dry_run)
        self._ahead = 2 * threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="spraydry-encode")
        self._open: dict[tuple[str, bool], _Open] = {}
        self._waiting: deque[tuple[list[bytes], Future[frames.Encoded]]] = deque()
        self._encoded: list[tuple[list[bytes], frames.Encoded]] = []
        self._encoded_bytes = 0
        times = _FAR_TIMES if repository.store.traits.round_trip_s > _FAR_S else 1
        self._batch_bytes, self._run_bytes = times * _BATCH_BYTES, times * _RUN_BYTES
        self._infos: list[FrameInfo] = []
        self._rows: list[Row] = []
        self._unpublished_bytes = 0
        self._pending: set[bytes] = set()
        self._asked: list[tuple[bytes, Buffer, str, bool]] = []  # added, but not yet looked up
        self._asked_bytes = 0
        self._catalog_empty = repository.catalog.is_empty()

    def unknown(self, names: Iterable[bytes]) -> set[bytes]:
        """Those chunks that are stored nowhere yet, neither by this writer nor before."""
        fresh = [name for name in dict.fromkeys(names) if name not in self._pending]
        if self._catalog_empty or not fresh:
            return set(fresh)
        missing = set(fresh) - self.repository.catalog.known(fresh)
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
        self._choice.settle()
        future = self._pool.submit(self._choice.encode, filling.chunks, line[0], self.level)
        self._waiting.append((filling.names, future))
        while len(self._waiting) > self._ahead:
            self._take()

    def _take(self) -> None:
        names, future = self._waiting.popleft()
        encoded = future.result()
        self._encoded.append((names, encoded))
        self._encoded_bytes += len(encoded.stored)
        if self._encoded_bytes >= self._batch_bytes:
            self._store()

    def _store(self) -> None:
        infos: list[FrameInfo] = []
        rows: list[Row] = []
        for names, encoded in self._encoded:
            place = len(self._infos) + len(infos)
            infos.append(frame_info(encoded.name, encoded.header, len(encoded.stored)))
            lengths = encoded.header.lengths
            rows += [
                Row(name, place, at, length)
                for name, at, length in zip(names, accumulate(lengths, initial=0), lengths, strict=False)
            ]
        unpublished_bytes = self._unpublished_bytes + self._encoded_bytes
        publish = self._finishing or unpublished_bytes >= self._run_bytes or len(self._rows) + len(rows) >= _RUN_ROWS
        if not self._dry_run:
            self._broken = True  # until the batch is durable: a run must never name frames that were not stored
            with self.repository.batch():
                self.repository.store.put_many("frames", ((e.name.hex(), e.stored) for _, e in self._encoded))
                if publish:
                    self._publish(self._infos + infos, self._rows + rows)
        self._infos += infos
        self._rows += rows
        self._unpublished_bytes = unpublished_bytes
        self.written.frames += len(self._encoded)
        self.written.stored_bytes += self._encoded_bytes
        self._encoded, self._encoded_bytes = [], 0
        self._broken = False
        if publish and not self._dry_run:
            self._catalog_empty = self._catalog_empty and not self._rows
            self._infos, self._rows, self._unpublished_bytes = [], [], 0
            # The index knows these from now on; what is not stored yet must stay known here.
            self._pending = {name for filling in self._open.values() for name in filling.names}
            self._pending.update(name for names, _ in self._waiting for name in names)

    def _publish(self, infos: list[FrameInfo], rows: list[Row]) -> None:
        if rows:
            run = encode_run(infos, rows)
            name = digest(run).hex()
            self.repository.store.put("index", name, run)
            self.repository.catalog.add_run(name, infos, rows, verified=True)

    def keep(self) -> None:
        """Publish what was stored, before giving up, so that it need not be stored again. After a failure to store that
        is what was durable before."""
        if self._dry_run:
            return
        if self._broken:
            with self.repository.batch():
                self._publish(self._infos, self._rows)
        else:
            self.finish()

    def finish(self) -> Written:
        """Store and publish all that was added; everything is durable when it returns. More may be added after.

        Raises StoreError when storing failed before: what was added since the last success is given up.
        """
        if self._broken:
            raise StoreError("storing failed before; nothing more can be added")
        self._answer()
        for line in list(self._open):
            self._close(line)
        while self._waiting:
            self._take()
        self._finishing = True
        self._store()
        self._finishing = False
        if not self._dry_run:
            self._choice.finish()
        return self.written

    def close(self) -> None:
        """Stop its threads; what was not finished is given up."""
        for _, future in self._waiting:
            future.cancel()
        self._pool.shutdown(wait=True)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
