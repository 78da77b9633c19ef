"""A self-contained EROFS image of a version, uncompressed, each content in it once."""

from __future__ import annotations

from spraydry.actions.export.target import Exported
from spraydry.actions.image import source_of, write_at
from spraydry.actions.progress import Done, Report, unheard
from spraydry.format.digest import digest
from spraydry.format.entry import FILE, Entry, encode_entry
from spraydry.format.erofs import write_image
from spraydry.format.erofs_contents import content_key
from spraydry.format.erofs_layout import BLOCK_BYTES
from spraydry.format.hashtable import Table
from spraydry.repository.address import Found
from spraydry.repository.ahead import read_ahead
from spraydry.repository.repository import Repository


def write_erofs(repository: Repository, found: Found, path: str, progress: Report = unheard) -> Exported:
    """Write the image of what is found, a directory, into the file at `path`; what a file's holes are stay holes.

    First the contents, from block 1 on, then the metadata that names their blocks. Raises ImageImpossible, CorruptData
    and others where a file cannot be read, OSError.
    """
    source = source_of(repository, found)
    done, total = Exported(), found.entry.totals
    known = Table()
    block = 1
    with open(path, "r+b", buffering=0) as out:
        for each in repository.walk(found):
            entry = each.entry
            done.entries += 1
            if entry.kind != FILE:
                continue
            done.files += 1
            done.size += entry.size
            if entry.size and known.setdefault(content_key(entry), block) == block:
                _write_content(repository, entry, out.fileno(), block * BLOCK_BYTES)
                block += -(-entry.size // BLOCK_BYTES)
            progress(Done("writing", done.files, done.size, total.files, total.size))

        def address(entry: Entry) -> int:
            at = known.get(content_key(entry))
            assert at is not None
            return at

        image = write_image(
            source,
            lambda at, plain: write_at(out.fileno(), at, plain),
            address,
            metadata_at=block,
            uuid=digest(encode_entry(found.entry))[:16],
        )
    done.written_bytes = image.size
    return done


def _write_content(repository: Repository, entry: Entry, descriptor: int, at: int) -> None:
    for span, chunk in read_ahead(repository, entry):
        if chunk is not None:
            write_at(descriptor, at + span.offset, chunk)
