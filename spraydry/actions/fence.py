"""The fence between writers and collection: what was condemned under a version in the making is stored again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import islice

from spraydry.actions.closure import chunks_of
from spraydry.errors import CollectedMeanwhile, CorruptData, NotFound, SprayDryError
from spraydry.format.entry import Entry
from spraydry.format.version import AnyRecord
from spraydry.repository.leases import Lease, hold
from spraydry.repository.repository import Repository
from spraydry.repository.writer import Writer

_TRIES = 20
_TOGETHER = 1000


def append_whole(
    repository: Repository,
    make: Callable[[bytes, int], AnyRecord],
    needed: Sequence[tuple[Entry, bytes | None]],
    began_at: int,
) -> tuple[int, AnyRecord]:
    """Append the record `make` returns, in the slot it wins, once all that `needed` entries with their links lists name
    is stored for good.

    `began_at` is the newest slot when the first of it was taken for stored. Where frames were condemned since, what
    they held of it is stored again, as long as it can be read, and then the log is tried again: not within a batch, so
    others go on meanwhile. The caller must be in no batch either. Raises CollectedMeanwhile where it cannot be read any
    more: then whoever made it must make it again.
    """
    checked = began_at

    def fenced(previous: bytes, now_ns: int) -> AnyRecord:
        if repository.log.given_up_since(checked):
            raise _Condemned
        return make(previous, now_ns)

    with ExitStack() as stack:
        lease: Lease | None = None
        for _ in range(_TRIES):
            try:
                with repository.committing():
                    appended = repository.log.append(fenced)
                    repository.remember_head()
                with suppress(SprayDryError):  # it is committed, and whoever commits next makes the pack
                    repository.log.pack(1)
                return appended
            except _Condemned:
                # Others collect just now: what is stored again is listed until it is committed.
                if lease is None:
                    lease = stack.enter_context(hold(repository, "storing again", writing=True, at_once=True))
                checked = _store_again(repository, needed, lease)
    raise CollectedMeanwhile(f"what this needs was collected {_TRIES} times meanwhile; run it again")


class _Condemned(Exception):
    pass


def _store_again(repository: Repository, needed: Sequence[tuple[Entry, bytes | None]], lease: Lease) -> int:
    """Store what these entries need and no frame holds any more that is not condemned; the slot up to which that is
    so. Raises CollectedMeanwhile where some of it cannot be read."""
    repository.refresh()
    checked = repository.log.head[0]
    try:
        with Writer(repository, lease=lease) as writer:
            every = all_chunks(repository, needed)
            while names := list(islice(every, _TOGETHER)):
                for name in sorted(_lacking(repository, writer.unknown(names))):
                    writer.add(name, bytes(repository.read_chunk(name)), "other", known=False)
            writer.finish()
    except (NotFound, CorruptData) as error:
        raise CollectedMeanwhile(f"what this needs was collected meanwhile ({error}); run it again") from None
    return checked


def _lacking(repository: Repository, unknown: set[bytes]) -> set[bytes]:
    """Those chunks without those which a lazy clone may count on because its origin has them."""
    if repository.opened.origin is None:
        return unknown
    catalog = repository.catalog
    return {name for name in unknown if all(catalog.is_condemned(place.frame) for place in catalog.chunks.locate(name))}


def all_chunks(repository: Repository, needed: Iterable[tuple[Entry, bytes | None]]) -> Iterator[bytes]:
    """The names of all that entries with their links lists need, some several times."""
    for entry, links in needed:
        yield from chunks_of(repository, entry, links)
