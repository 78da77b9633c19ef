"""Lazy clones: versions and trees now, with the index of all frames; contents when they are read, or are filled in."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from spraydry.actions.joining import absolute
from spraydry.actions.progress import Report, unheard
from spraydry.actions.transfer.transfer import Transferred, check, fill, transfer
from spraydry.errors import CorruptData, UsageError
from spraydry.format.digest import digest
from spraydry.format.run import decode_run
from spraydry.repository.origin import Origin, write_origin
from spraydry.repository.repository import Repository
from spraydry.repository.runs import replace_runs

_TAKEN = "origin-runs"
_RUNS_BYTES = 16 << 20


def clone_lazily(
    source: Repository, target: Repository, addresses: Sequence[str] = (), *, report: Report = unheard
) -> Transferred:
    """Make an empty repository a lazy clone of `source`: its versions and trees; what files hold is fetched from there
    when it is read, once it is opened again. Raises UsageError for one that is not on this machine, and as `transfer`.
    """
    check(source, addresses)
    if target.store.location() is None:
        raise UsageError(f"a lazy clone lies on one store of this machine, which {target.url} is not")
    write_origin(target.store, Origin(absolute(source.url), source.config.repository))
    return update(source, target, addresses, report=report)


def update(
    source: Repository,
    target: Repository,
    addresses: Sequence[str] = (),
    *,
    dry_run: bool = False,
    report: Report = unheard,
) -> Transferred:
    """Bring to a lazy clone the versions it lacks, and where its origin has everything now. Raises as `transfer`."""
    if not dry_run:
        _take_index(source, target)
    return transfer(source, target, addresses, contents=False, dry_run=dry_run, report=report)


def complete(
    source: Repository,
    target: Repository,
    addresses: Sequence[str] = (),
    *,
    dry_run: bool = False,
    report: Report = unheard,
) -> Transferred:
    """Bring to a lazy clone the versions it lacks, and all that it still lacks of those it has. With everything there
    (no `addresses`) it is a clone no more: it needs its origin for nothing. Raises as `transfer`."""
    done = transfer(source, target, addresses, dry_run=dry_run, report=report)
    filled = fill(source, target, addresses, dry_run=dry_run, report=report)
    done.frames += filled.frames
    done.chunks += filled.chunks
    done.sent_bytes += filled.sent_bytes
    if not addresses and not dry_run:
        _forget_absent(target)
        write_origin(target.store, None)
        target.store.flush()
    return done


def _take_index(source: Repository, target: Repository) -> None:
    """Copy the source's index runs, so that chunks can be located; nothing is deduplicated against what they say."""
    remembered = target.catalog.state(_TAKEN)
    taken: set[str] = set(msgspec.msgpack.decode(remembered, type=list[str])) if remembered else set()
    names = [stored.name for stored in source.store.list("index") if stored.name not in taken]
    for name, value in source.store.get_many("index", names):
        if value is None:
            continue  # merged into another meanwhile
        if digest(value).hex() != name:
            raise CorruptData(f"{source.url}: index run {name} is damaged: `spraydry verify --rebuild` makes it anew")
        target.store.put("index", name, value)
    target.refresh()
    target.catalog.remember(_TAKEN, msgspec.msgpack.encode(sorted(taken | set(names))))


def _forget_absent(target: Repository) -> None:
    """Take out of the index what is only at the origin, and needed by nothing here."""
    store = target.store
    absent = {name for name in target.catalog.names() if store.info("frames", name.hex()) is None}
    names: list[str] = []
    held = 0
    for stored in list(store.list("index")):
        infos, _ = decode_run(store.get("index", stored.name))
        if any(info.name in absent for info in infos):
            names.append(stored.name)
            held += stored.size
        if held >= _RUNS_BYTES:
            replace_runs(target, names, absent)
            names, held = [], 0
    if names:
        replace_runs(target, names, absent)
    target.catalog.forget_frames(absent)
    target.catalog.chunks.drop_dead_rows()
