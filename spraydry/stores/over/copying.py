"""Bringing values to one member from the others: frames with the index rows that name them, and what it missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from spraydry.errors import CorruptData, StoreError, StoreUnavailable, ValueNotFound
from spraydry.format.digest import digest
from spraydry.format.run import FrameInfo, Row, encode_run
from spraydry.stores.over.member import Member, Missed, Queue
from spraydry.stores.over.reader import Reader

_BATCH_BYTES = 8 << 20
_BATCH_ENTRIES = 256
_MOST_BEHIND = 10_000  # names whose order must be kept in mind


@dataclass
class Delivered:
    """What members that were back were brought: values, their bytes, deletions; `gone` were deleted meanwhile, `lost`
    are damaged on every store that has them, `later` could not be had yet and wait on."""

    values: int = 0
    bytes: int = 0
    deletions: int = 0
    gone: int = 0
    lost: int = 0
    later: int = 0


def copy_to(member: Member, namespace: str, values: Sequence[tuple[str, bytes]], reader: Reader) -> None:
    """Put sound values on a member; of frames first a run that names them, so that the member's index is never short of
    them (they are durable elsewhere, so what it says is true at once). Raises StoreError."""
    if not values:
        return
    if namespace == "frames":
        put_run(member, [value for _, value in values], reader)
    member.write(lambda store: store.put_many(namespace, values))


def put_run(member: Member, values: Sequence[bytes], reader: Reader) -> int:
    """Write a run of these frames into a member's index; the number of frames that it names. Of a frame that cannot be
    decoded (no dictionary) nothing can be said. Raises StoreError."""
    infos: list[FrameInfo] = []
    rows: list[Row] = []
    for value in values:
        try:
            info, found = reader.rows(value, len(infos))
        except CorruptData:
            continue
        infos.append(info)
        rows += found
    if infos:
        run = encode_run(infos, rows)
        member.write(lambda store: store.put("index", digest(run).hex(), run))
    return len(infos)


def deliver(member: Member, reader: Reader, done: Delivered) -> None:
    """Bring a member what waits for it, oldest first, until nothing does or it fails again.

    What a crash leaves is delivered again: an entry leaves the queue when what it asks for is durable. What cannot be
    had now stays there, with what is asked for the same name after it.
    """
    queue = member.queue
    behind: set[tuple[str, str]] = set()
    last = -1
    while queue is not None and len(behind) < _MOST_BEHIND:
        batch = _batch(queue, last, behind, member, reader, done)
        if batch.last == last:
            return
        last = batch.last
        try:
            for step in batch.steps:
                _write(member, step, reader)
        except (StoreError, CorruptData):
            return  # it is left out again; all of it waits on
        for kind, _, values in batch.steps:
            if kind == "delete":
                done.deletions += len(values)
            else:
                done.values += len(values)
                done.bytes += sum(len(value) for _, value in values)
        if batch.finished:
            queue.delete(*batch.finished)


_Step = tuple[str, str, list[tuple[str, bytes]]]  # kind, namespace, names (and values, b"" for deletions)


@dataclass
class _Batch:
    """What to do at a member, in order; `finished` can be forgotten then; `last` is the last index looked at."""

    last: int
    finished: list[int] = field(default_factory=list)
    steps: list[_Step] = field(default_factory=list)


def _batch(
    queue: Queue, after: int, behind: set[tuple[str, str]], member: Member, reader: Reader, done: Delivered
) -> _Batch:
    batch = _Batch(after)
    held = 0
    for index in queue.indexes(after):
        if held >= _BATCH_BYTES or len(batch.finished) >= _BATCH_ENTRIES:
            break
        batch.last = index
        try:
            missed = Missed.decoded(queue.read(index))
        except ValueNotFound:
            continue  # another process was faster
        except CorruptData:
            done.lost += 1
            batch.finished.append(index)
            continue
        if missed[1:] in behind:
            done.later += 1
            continue
        try:
            value = b"" if missed.kind == "delete" else _value(missed, member, reader)
        except StoreUnavailable:
            behind.add(missed[1:])
            done.later += 1
            continue
        except ValueNotFound:
            done.gone += 1
        except CorruptData:
            done.lost += 1
        else:
            held += len(value)
            if not batch.steps or batch.steps[-1][:2] != missed[:2]:
                batch.steps.append((missed.kind, missed.namespace, []))
            batch.steps[-1][2].append((missed.name, value))
        batch.finished.append(index)
    return batch


def _value(missed: Missed, member: Member, reader: Reader) -> bytes:
    """From the others; or from itself, where it has the frame and lacks only rows that name it."""
    order = sorted(reader.order(missed.namespace, missed.name), key=lambda one: one is member)
    return reader.read(missed.namespace, missed.name, order).value


def _write(member: Member, step: _Step, reader: Reader) -> None:
    kind, namespace, values = step
    if kind == "delete":
        member.write(lambda store: store.delete(namespace, [name for name, _ in values]))
    else:
        copy_to(member, namespace, values, reader)


def copy_log(owner: Member, member: Member, after: str) -> str:
    """Copy the log's records behind `after` that a member does not have from the store that owns them; the name of the
    newest that it has then. Raises StoreError."""
    ours = owner.write(lambda store: list(store.list("log", after)))
    theirs = member.write(lambda store: {stored.name: stored.size for stored in store.list("log", after)})
    for stored in ours:
        if theirs.get(stored.name) != stored.size:
            name = stored.name
            value = owner.write(lambda store, name=name: store.get("log", name))  # type: ignore[misc]
            member.write(lambda store, name=name, value=value: store.put("log", name, value))  # type: ignore[misc]
        after = stored.name
    return after
