"""Storing encoded frames with the index runs that name them: a batch at a time, in a thread of its own."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import accumulate
from typing import NamedTuple

from spraydry.format import frame as frames
from spraydry.format.digest import digest
from spraydry.format.run import FrameInfo, Row, encode_run
from spraydry.repository.frames import frame_info
from spraydry.repository.leases import Lease
from spraydry.repository.repository import Repository

_RUN_ROWS = 100_000


class Named(NamedTuple):
    """An encoded frame, and the digests of its chunks."""

    chunks: Sequence[bytes]
    frame: frames.Encoded


class Stored(NamedTuple):
    """What became durable with a batch; `published`: the index names it now, and all that was stored before."""

    frames: int
    bytes: int
    published: bool


class Storer:
    """Stores one batch while its caller makes the next; not thread-safe.

    Frames and the run that names them are stored in the same batch of the repository where store and catalog are one
    file, and in that order everywhere. A run is written when it names `run_bytes` of frames. At most one batch is on
    its way: that bounds memory, and a batch is begun when the one before is durable. Without a lease nothing is stored:
    this is a dry run.
    """

    def __init__(self, repository: Repository, run_bytes: int, lease: Lease | None) -> None:
        self.broken = False  # a batch failed: a run must never name frames that were not stored
        self._repository = repository
        self._run_bytes = run_bytes
        self._lease = lease
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="spraydry-store")
        self._on_its_way: Future[Stored] | None = None
        self._infos: list[FrameInfo] = []  # of what is durable, but named by no run
        self._rows: list[Row] = []
        self._bytes = 0

    def store(self, batch: Sequence[Named], publish: bool) -> None:
        """Begin to store a batch, with a run if it is time for one, or to `publish`. What `landed` said of the one
        before must have been heard."""
        assert self._on_its_way is None
        self._on_its_way = self._pool.submit(self._store, batch, publish)

    def landed(self) -> Stored | None:
        """Wait for the batch that is on its way, and say what became of it; None where there is none. Raises what the
        store raised; what was not durable before is given up then."""
        if self._on_its_way is None:
            return None
        wait([self._on_its_way])  # interrupted here, it is still on its way
        done, self._on_its_way = self._on_its_way, None
        self.broken = True
        stored = done.result()
        self.broken = False
        return stored

    def publish(self) -> None:
        """Name what is durable in a run. Nothing may be on its way."""
        with self._repository.batch():
            self._publish(self._infos, self._rows)

    def _store(self, batch: Sequence[Named], publish: bool) -> Stored:
        infos, rows = list(self._infos), list(self._rows)
        describe(batch, infos, rows)
        stored = sum(len(encoded.stored) for _, encoded in batch)
        if self._lease is None:
            return Stored(len(batch), stored, False)
        publish = publish or self._bytes + stored >= self._run_bytes or len(rows) >= _RUN_ROWS
        with self._repository.batch():
            self._repository.store.put_many("frames", ((made.name.hex(), made.stored) for _, made in batch))
            if publish:
                self._publish(infos, rows)
        self._infos, self._rows, self._bytes = ([], [], 0) if publish else (infos, rows, self._bytes + stored)
        return Stored(len(batch), stored, publish)

    def _publish(self, infos: list[FrameInfo], rows: list[Row]) -> None:
        if rows:
            publish(self._repository, infos, rows)
            if self._lease is not None:
                self._lease.frames([info.name for info in infos])

    def close(self) -> None:
        """End its thread, when what is on its way has landed."""
        self._pool.shutdown(wait=True)


def describe(batch: Sequence[Named], infos: list[FrameInfo], rows: list[Row]) -> None:
    """Add what a run says of frames."""
    for names, encoded in batch:
        lengths = encoded.header.lengths
        rows += [
            Row(name, len(infos), at, length)
            for name, at, length in zip(names, accumulate(lengths, initial=0), lengths, strict=False)
        ]
        infos.append(frame_info(encoded.name, encoded.header, len(encoded.stored)))


def publish(repository: Repository, infos: Sequence[FrameInfo], rows: Sequence[Row]) -> None:
    """Name frames that are stored in an index run, and in the catalog. Belongs into a batch."""
    run = encode_run(infos, rows)
    name = digest(run).hex()
    repository.store.put("index", name, run)
    repository.catalog.add_run(name, infos, rows, verified=True)
