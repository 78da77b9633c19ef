"""Sending what a plan says for one version: frames as they are, and pieces of others encoded anew, all verified."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from spraydry.actions.transfer.plan import Plan, Some
from spraydry.errors import SprayDryError
from spraydry.format import frame as frames
from spraydry.format.digest import Buffer, digest
from spraydry.parallel import ordered_map
from spraydry.repository.ahead import threads_of
from spraydry.repository.repository import Repository
from spraydry.repository.storer import Named
from spraydry.repository.writer import Writer


class _Piece(NamedTuple):
    chunk: bytes
    plain: Buffer
    frame_class: str
    part: bool


class Sender:
    """Takes frames from a source and gives them to a writer of the target. Blocks; for one thread.

    Each frame is decoded and its chunks are named anew before it is stored: what a source says of them counts for
    nothing. A frame whose name the target ever condemned, and may still be deleting, gets another one; what one holds
    that needs a dictionary the target gave up is encoded anew.
    """

    def __init__(
        self, source: Repository, target: Repository, plan: Plan, writer: Writer, sent: Callable[[int], None]
    ) -> None:
        self._source = source
        self._plan = plan
        self._writer = writer
        self._sent = sent
        self._threads = threads_of(source)
        self._condemned = target.log.ever_condemned()
        self._target = target

    def send(self, item: int) -> None:
        """All that item `item` needs; it is durable when the writer has finished. Raises ChunkNotFound, ChunkCorrupt
        where the source cannot give it, StoreError."""
        for name, named in ordered_map(self._frame, self._plan.whole(item), self._threads):
            if named is None or not self._plan.wanted(name) <= set(named.chunks):
                self._plan.break_up(name)
                continue
            needs = named.frame.header.dictionary
            if needs in self._target.log.dropped:
                self._plan.break_up(name)
                continue
            if named.frame.name in self._condemned:
                named = Named(named.chunks, frames.salted(named.frame.stored))
            self._writer.add_frame(named, self._source.dictionary(needs) if needs else None)
            self._sent(len(named.frame.stored))
        for pieces, stored_bytes in ordered_map(self._pieces, self._plan.parts(item), self._threads):
            for piece in pieces:
                self._writer.add(piece.chunk, piece.plain, piece.frame_class, None, piece.part)
            self._sent(stored_bytes)

    def _frame(self, name: bytes) -> tuple[bytes, Named | None]:
        """A frame with the digests of its chunks, computed; None where it is damaged or gone."""
        try:
            stored = self._source.store.get("frames", name.hex())
            if digest(stored) != name:
                return name, None
            _, rows, _ = self._source.decoded(name, stored)
        except SprayDryError as error:
            if error.retryable:
                raise
            return name, None
        return name, Named([row.digest for row in rows], frames.Encoded(name, stored, frames.header(stored)))

    def _pieces(self, some: Some) -> tuple[list[_Piece], int]:
        """Chunks of a frame; those that are not in it after all, from where else they are."""
        found: dict[bytes, Buffer] = {}
        frame_class, share = "other", 0
        if some.frame is not None:
            try:
                info, rows, plain = self._source.decode_frame(some.frame)
            except SprayDryError as error:
                if error.retryable:
                    raise
            else:
                frame_class = info.frame_class
                view = memoryview(plain)
                wanted = {chunk for chunk, _ in some.chunks}
                found = {
                    row.digest: bytes(view[row.offset : row.offset + row.length])
                    for row in rows
                    if row.digest in wanted
                }
                share = info.stored * sum(map(len, found.values())) // info.plain
        return [
            _Piece(chunk, found[chunk] if chunk in found else bytes(self._source.read_chunk(chunk)), frame_class, part)
            for chunk, part in some.chunks
        ], share
