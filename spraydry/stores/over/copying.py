"""Bringing values to one member from the others: frames with the index rows that name them, and what it missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spraydry.errors import CorruptData, StoreError, StoreUnavailable, ValueNotFound
from spraydry.format.digest import digest
from spraydry.format.run import FrameInfo, Row, encode_run
from spraydry.stores.base import Store
from spraydry.stores.over.member import Member, Missed
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
    had now goes behind the others, with what is asked for the same name after it, and is tried once.
    """
    queue = member.queue
    if queue is None:
        return
    left = len(queue)
    behind: set[tuple[str, str]] = set()
    while left > 0 and len(behind) < _MOST_BEHIND:
        entries = queue.peek(min(left, _BATCH_ENTRIES))
        if not entries:
            return
        took, later, run = _batch(entries, behind, member, reader, done)
        try:
            _write(member, run, reader)
        except (StoreError, CorruptData):
            return  # it is left out again; all of it waits on
        for kind, _, values in run:
            if kind == "delete":
                done.deletions += len(values)
            else:
                done.values += len(values)
                done.bytes += sum(len(value) for _, value in values)
        if later:
            queue.append(later)
            done.later += len(later)
        queue.pop(took)
        left -= took


_Step = tuple[str, str, list[tuple[str, bytes]]]  # kind, namespace, names (and values, b"" for deletions)


def _batch(
    entries: Sequence[bytes], behind: set[tuple[str, str]], member: Member, reader: Reader, done: Delivered
) -> tuple[int, list[bytes], list[_Step]]:
    """So many of the entries, in their order: their number, those to try later, and what to do at the member."""
    steps: list[_Step] = []
    later: list[bytes] = []
    held = 0
    for number, entry in enumerate(entries):
        if held >= _BATCH_BYTES:
            return number, later, steps
        try:
            missed = Missed.decoded(entry)
            if missed[1:] in behind:
                later.append(entry)
                continue
            value = b"" if missed.kind == "delete" else _value(missed, member, reader)
        except ValueNotFound:
            done.gone += 1
            continue
        except CorruptData:
            done.lost += 1
            continue
        except StoreUnavailable:
            behind.add(missed[1:])
            later.append(entry)
            continue
        held += len(value)
        if not steps or steps[-1][:2] != (missed.kind, missed.namespace):
            steps.append((missed.kind, missed.namespace, []))
        steps[-1][2].append((missed.name, value))
    return len(entries), later, steps


def _value(missed: Missed, member: Member, reader: Reader) -> bytes:
    """From the others; or from itself, where it has the frame and lacks only rows that name it."""
    order = sorted(reader.order(missed.namespace, missed.name), key=lambda one: one is member)
    return reader.read(missed.namespace, missed.name, order).value


def _write(member: Member, steps: Sequence[_Step], reader: Reader) -> None:
    for kind, namespace, values in steps:
        if kind == "delete":
            names = [name for name, _ in values]

            def delete(store: Store, namespace: str = namespace, names: list[str] = names) -> None:
                store.delete(namespace, names)

            member.write(delete)
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
