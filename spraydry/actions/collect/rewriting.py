"""Storing what lives in frames with too little life in new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from spraydry.actions.progress import Done, Report
from spraydry.errors import SprayDryError, StoreFull
from spraydry.format.digest import Buffer
from spraydry.format.run import Row
from spraydry.parallel import ordered_map
from spraydry.repository.marks import Life, Marks
from spraydry.repository.repository import Repository
from spraydry.repository.writer import PART_TARGET_BYTES, Writer


@dataclass
class Rewritten:
    """What was stored anew; `damaged` frames, with the reason, were left alone."""

    plain_bytes: int = 0
    new_frames: int = 0
    new_bytes: int = 0
    damaged: list[tuple[bytes, str]] = field(default_factory=list)


def rewrite(repository: Repository, marks: Marks, sparse: Sequence[Life], report: Report) -> Rewritten:
    """Store the chunks that live in some frames in new ones, each verified; the old ones stay as they are.

    Raises StoreFull; what was stored by then is published, so that it counts.
    """
    done = Rewritten()
    total = sum(life.bytes for life in sparse)

    def read(life: Life) -> tuple[Life, dict[bytes, Row], Buffer, str]:
        try:
            _, rows, plain = repository.decode_frame(life.info.name)
            return life, {row.digest: row for row in rows}, plain, ""
        except SprayDryError as error:
            return life, {}, b"", str(error)

    with Writer(repository) as writer:
        try:
            for life, held, plain, why in ordered_map(read, sparse):
                living = marks.chunks(life.id)
                if not living <= held.keys():
                    done.damaged.append((life.info.name, why or "it does not hold what the index says"))
                    continue
                view = memoryview(plain)
                for name in sorted(living, key=lambda name: held[name].offset):
                    row = held[name]
                    part = life.info.plain <= PART_TARGET_BYTES
                    chunk = bytes(view[row.offset : row.offset + row.length])
                    writer.add(name, chunk, life.info.frame_class, known=False, part=part)
                    done.plain_bytes += row.length
                report(Done("rewriting", 0, done.plain_bytes, None, total))
            writer.finish()
        except StoreFull:
            writer.keep()
            raise
    done.new_frames, done.new_bytes = writer.written.frames, writer.written.stored_bytes
    return done
