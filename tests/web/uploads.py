"""What a client sends to a server's gate, made by hand: also what no honest one would send."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from spraydry.format import frame as frames
from spraydry.format.chunker import DEFAULT_SPEC
from spraydry.format.digest import digest
from spraydry.format.entry import DIRECTORY, FILE, Entry, Subtree, Totals
from spraydry.format.run import FrameInfo, Row, encode_run
from spraydry.format.tree_builder import TreeBuilder
from spraydry.format.version import AnyRecord, VersionRecord, encode_record
from spraydry.repository.frames import frame_info
from spraydry.repository.repository import Repository
from spraydry.repository.slots import slot_name
from spraydry.web.grant import EVERYTHING, Grant, Right, Rule
from spraydry.web.keyvalue.gate import Gate

ADDING = Grant((Rule(frozenset[Right]({"list", "read", "add"})),))
READING = Grant((Rule(frozenset[Right]({"list", "read"})),))
ALL = EVERYTHING


@dataclass
class Sender:
    """A client of the gate to one repository."""

    repository: Repository
    gate: Gate
    grant: Grant = ADDING
    runs: list[str] = field(default_factory=list)

    def put(self, namespace: str, name: str, value: bytes) -> None:
        self.gate.put(self.grant, namespace, [(name, value)])

    def create(self, namespace: str, name: str, value: bytes) -> bool:
        return self.gate.create(self.grant, namespace, name, value)

    def frame(self, chunks: Sequence[bytes], dictionary: frames.Dictionary | None = None) -> frames.Encoded:
        """Upload a frame of these chunks, which no run names yet."""
        made = frames.encode(chunks, "other", dictionary=dictionary)
        self.put("frames", made.name.hex(), made.stored)
        return made

    def store(self, *chunks: bytes) -> frames.Encoded:
        """Upload a frame of these chunks and a run that names them."""
        made = self.frame(chunks)
        infos, rows = rows_of(made, chunks)
        self.run(infos, rows)
        return made

    def run(self, infos: Sequence[FrameInfo], rows: Sequence[Row]) -> str:
        run = encode_run(infos, rows)
        name = digest(run).hex()
        self.put("index", name, run)
        return name

    def append(self, record: AnyRecord, slot: int | None = None) -> bool:
        """Commit a record in the next slot, as one that follows what is there."""
        self.repository.refresh()
        head, previous = self.repository.log.head
        value = encode_record(msgspec.structs.replace(record, previous=previous))
        return self.create("log", slot_name(head + 1 if slot is None else slot), value)


@contextmanager
def sender(folder: Path, grant: Grant = ADDING, name: str = "served") -> Iterator[Sender]:
    """A client with the right to add (or others) of a repository in `folder`."""
    with Repository.open(str(folder / f"{name}.sqlite"), create=True) as repository:
        yield Sender(repository, Gate(repository, False), grant)


def rows_of(made: frames.Encoded, chunks: Sequence[bytes]) -> tuple[list[FrameInfo], list[Row]]:
    """What an honest run says of a frame."""
    rows, at = [], 0
    for chunk in chunks:
        rows.append(Row(digest(chunk), 0, at, len(chunk)))
        at += len(chunk)
    return [frame_info(made.name, made.header, len(made.stored))], rows


def file_of(name: bytes, content: bytes) -> Entry:
    """An entry of a file of one chunk."""
    return Entry(name, FILE, 0o644, 0, 0, 1, 0, len(content), digest(content) if content else None, (), None)


def directory_of(entries: Sequence[Entry], name: bytes = b"") -> tuple[Entry, dict[bytes, bytes]]:
    """A directory of these entries, and its pages."""
    pages: dict[bytes, bytes] = {}
    builder = TreeBuilder(pages.__setitem__)
    for entry in sorted(entries, key=lambda entry: entry.name):
        builder.add(entry)
    subtree = builder.finish()
    return Entry(name, DIRECTORY, 0o755, 0, 0, 1, 0, 0, subtree, (), None), pages


def claiming(entry: Entry, totals: Totals) -> Entry:
    """The same directory with sums that are not its own."""
    assert isinstance(entry.content, Subtree)
    return msgspec.structs.replace(entry, content=Subtree(entry.content.digest, *totals))


def fields() -> dict[str, object]:
    """What every record begins with."""
    return {"format": 1, "previous": bytes(32), "made_ns": time.time_ns(), "made_by": "a test"}


def version(entry: Entry, root: str = "photos", name: str = "v1", **other: object) -> VersionRecord:
    """A version record of an entry."""
    told: dict[str, object] = {
        "root": root,
        "name": name,
        "entry": entry,
        "links": None,
        "spec": DEFAULT_SPEC,
        "users": (),
        "groups": (),
        "incomplete": False,
        "new_bytes": 0,
        "stored_bytes": 0,
    }
    return VersionRecord(**{**fields(), **told, **other})  # type: ignore[arg-type]
