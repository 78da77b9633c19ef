"""The transfer: what is missing goes from one repository to another, and each version is committed when whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import msgspec

from spraydry.actions.commit import commit_copy
from spraydry.actions.ingest.ingest import kept
from spraydry.actions.progress import Done, Report, unheard
from spraydry.actions.transfer.again import until_whole
from spraydry.actions.transfer.choose import Item, choose, content_name, named, records, renamed, same_content
from spraydry.actions.transfer.hoards import KeysTransferred, choose_keys, fill_keys, transfer_keys
from spraydry.actions.transfer.needed import Reader, needed
from spraydry.actions.transfer.plan import Plan
from spraydry.actions.transfer.send import Sender
from spraydry.errors import (
    ChunkNotFound,
    CorruptData,
    SprayDryError,
    VersionExists,
    VersionNotFound,
)
from spraydry.format.entry import Content
from spraydry.format.version import TagRecord, VersionRecord
from spraydry.repository.bundles import check_whole
from spraydry.repository.leases import Lease, hold
from spraydry.repository.log import Log
from spraydry.repository.repository import Repository
from spraydry.repository.runs import merge_runs
from spraydry.repository.versions import Version
from spraydry.repository.writer import Writer
from spraydry.stores.database.scratch import scratch_errors

_TOLD = 5
# Merging index runs moves them there and back. With the usual few, every eighth push of a small version moved three
# times what the version takes; the target's own ingests, and gc, merge sooner.
_MANY_RUNS = 200
_RUN_BYTES = 8 << 20  # also far away, where an ingest publishes more rarely: a network that failed is the usual end


@dataclass
class Transferred:
    """What was (or would be) transferred: `versions` with all new names, oldest first. `existing` were there, `removed`
    were there once and were removed. `behind` says of roots which version was the newest there, where older ones came
    after it: a root alone means what came last. `sent_bytes` is what new frames take, `chunks` what they hold; of a dry
    run, `sent_bytes` is an estimate, `frames` are those copied as they are, and `chunks` those encoded anew."""

    versions: list[str] = field(default_factory=list)
    existing: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    behind: dict[str, str] = field(default_factory=dict)
    frames: int = 0
    chunks: int = 0
    sent_bytes: int = 0
    hoards: list[KeysTransferred] = field(default_factory=list)


def check(
    source: Repository, addresses: Sequence[str], root: str | None = None, hoards: Sequence[str] = ()
) -> list[Version]:
    """The versions that would be transferred, oldest first. Raises UsageError, RootNotFound, VersionNotFound,
    HoardNotFound."""
    for hoard in hoards:
        source.log.hoards.existing(hoard)
    versions = [] if hoards and not addresses else named(source.log, addresses)
    return versions if root is None else renamed(versions, root)


def transfer(
    source: Repository,
    target: Repository,
    addresses: Sequence[str] = (),
    *,
    root: str | None = None,
    hoards: Sequence[str] = (),
    overwrite: bool = False,
    contents: bool = True,
    assumed: Sequence[Version] = (),
    dry_run: bool = False,
    report: Report = unheard,
) -> Transferred:
    """Copy versions that `target` lacks: ROOT (all of its versions, under all names), ROOT@VERSION; and the keys of
    `hoards`; or, where neither is given, everything.

    Only chunks that the target lacks are sent, and each is verified on the way. Versions are committed oldest first,
    each as soon as it is whole: what was copied when it ends counts the next time. With `root` the versions of one root
    become another's. Without `contents`, only trees and what else is not the content of files is sent: for a lazy clone
    of the source; nor what is in the versions `assumed` of the source: for a relative bundle. Of keys, one that names
    something else there is replaced where that is what it once named here, stays where it is the other way round, and
    is refused otherwise, unless to `overwrite`; keys that are only there stay.

    Raises UsageError, RootNotFound, VersionNotFound, HoardNotFound, VersionExists, KeyExists before anything is sent,
    and StoreError, ChunkNotFound, ChunkCorrupt.
    """
    wanted = check(source, addresses, root, hoards)
    done = Transferred()
    with ExitStack() as leases:
        leases.enter_context(hold(source, "a transfer", pins=[version.made_in for version in wanted]))
        source.refresh()  # what was removed and collected before the lease was there is not found any more
        versions = check(source, addresses, root, hoards)
        if source.opened.bundle is not None:
            check_whole(source.store, source.opened.bundle)
        target.refresh()
        keys = [
            choose_keys(source, target, hoard, overwrite)
            for hoard in hoards or (() if addresses else source.log.hoards.names())
        ]
        attempt = partial(_attempt, source, target, versions, contents, assumed, done, dry_run, report)
        if dry_run:
            attempt(None)
        else:
            until_whole(target, attempt)
        for some in keys:
            transfer_keys(source, target, some, contents=contents, dry_run=dry_run, report=report)
            done.hoards.append(some.done)
            done.sent_bytes += some.done.sent_bytes
    if (done.versions or done.hoards) and not dry_run:
        merge_runs(target, _MANY_RUNS)
        target.store.flush()
    return done


def _attempt(
    source: Repository,
    target: Repository,
    versions: Sequence[Version],
    contents: bool,
    assumed: Sequence[Version],
    done: Transferred,
    dry_run: bool,
    report: Report,
    lease: Lease | None,
) -> None:
    choice = choose(versions, source.log, target.log)
    began_at = target.log.head[0]
    done.existing = [str(version) for version in choice.existing if str(version) not in done.versions]
    done.removed = [str(version) for version in choice.removed]
    for item in choice.items:
        root, newest = item.names[0].root, target.log.newest(item.names[0].root)
        there = newest and source.log.used(item.record.root, newest.name)
        if newest and there and item.there is None and there.made_in > item.names[0].made_in:
            done.behind.setdefault(root, newest.name)
    shared = shared_versions(source.log, target.log)
    wanted = [Wanted(str(item), None if item.there else item.record, _base(item, shared)) for item in choice.items]
    reader = Reader(source, target)
    for number in copy(source, target, reader, wanted, contents, assumed, done, dry_run, report, lease):
        item = choice.items[number]
        if dry_run:
            done.versions += [str(version) for version in item.names]
        else:
            _commit(source, target, item, began_at, done)


def fill(
    source: Repository,
    target: Repository,
    addresses: Sequence[str] = (),
    *,
    dry_run: bool = False,
    report: Report = unheard,
) -> Transferred:
    """Bring to a lazy clone what its versions still lack (those that are named, or all), from where it was cloned.

    Raises as `transfer`.
    """
    done = Transferred()
    versions = {version.made_in: version for version in named(target.log, addresses)}
    wanted = [Wanted(str(version), version.record, None) for version in versions.values()]
    for _ in copy(source, target, Reader(target, source), wanted, True, (), done, dry_run, report):
        pass
    for hoard in () if addresses else target.log.hoards.names():
        done.sent_bytes += fill_keys(source, target, hoard, dry_run)
    if not dry_run:
        target.store.flush()
    return done


class Wanted(NamedTuple):
    """A version by its name, what is to be copied of it (None: nothing), and one whose chunks are there already."""

    name: str
    record: VersionRecord | None
    base: VersionRecord | None


def copy(
    source: Repository,
    target: Repository,
    reader: Reader,
    wanted: Sequence[Wanted],
    contents: bool,
    assumed: Sequence[Version],
    done: Transferred,
    dry_run: bool,
    report: Report,
    lease: Lease | None = None,
) -> Iterator[int]:
    """Copy the chunks which the target lacks of versions, in their order; the number of each as soon as it is whole and
    durable there. What is read of them comes through `reader`. Counts in `done`. The `lease` keeps what is stored there
    from collection until a version names it; by default one of its own, which is written when it takes long."""
    with scratch_errors(), ExitStack() as stack:
        plan = Plan(source, lambda chunks: _unknown(target, chunks))
        stack.callback(plan.close)
        for version in assumed:
            plan.assume(needed(reader, version.record, None, plan.first))
        broken: SprayDryError | None = None
        with _prerequisites(source, target):
            for number, (name, record, base) in enumerate(wanted):
                if record is not None:
                    report(Done(f"looking at {name}"))
                    chunks = needed(reader, record, base, plan.first)
                    try:
                        plan.add(number, chunks if contents else (chunk for chunk in chunks if not chunk.content))
                    except (CorruptData, ChunkNotFound) as error:
                        if source.opened.bundle is not None or dry_run:
                            raise
                        # Those before it are copied all the same. Those behind it may count on what it would bring.
                        wanted, broken = wanted[:number], _of(name, error)
                        break
            if source.opened.bundle is not None and plan.nowhere:
                raise ChunkNotFound(f"{plan.nowhere} chunks are in no frame of {source.url}")
        totals = plan.settle()
        if dry_run:
            done.frames, done.chunks, done.sent_bytes = totals
            yield from range(len(wanted))
            return
        writer = stack.enter_context(Writer(target, plan.level, run_bytes=_RUN_BYTES, lease=lease))
        stack.enter_context(kept(writer, False))
        before = replace(done)
        sent = number = 0

        def count(stored_bytes: int) -> None:
            nonlocal sent
            sent += stored_bytes
            report(Done(f"copying {wanted[number].name}", 0, sent, None, totals.bytes))

        sender = Sender(source, target, plan, writer, count)
        for number, (name, record, _) in enumerate(wanted):
            if record is not None:
                try:
                    sender.send(number)
                except (CorruptData, ChunkNotFound) as error:
                    raise _of(name, error) from None
                written = writer.finish()
                done.frames = before.frames + written.frames
                done.chunks = before.chunks + written.chunks
                done.sent_bytes = before.sent_bytes + written.stored_bytes
            yield number
        if broken is not None:
            raise broken


def _of(name: str, error: SprayDryError) -> SprayDryError:
    return type(error)(f"{name} cannot be copied (what is older was): {error}")


@contextmanager
def _prerequisites(source: Repository, target: Repository) -> Iterator[None]:
    """What a relative bundle lacks and the target should have is told by the names of versions."""
    try:
        yield
    except ChunkNotFound as error:
        bundle = source.opened.bundle
        if bundle is None or not bundle.prerequisites:
            raise
        there = {content_name(version.record) for root in target.roots() for version in target.versions(root)}
        lacking = [one.name for one in bundle.prerequisites if one.content not in there]
        raise VersionNotFound(
            f"{source.url} builds on {', '.join(lacking[-_TOLD:])}, which {'is' if len(lacking) == 1 else 'are'} not in"
            f" {target.url}: bring that there first"
        ) from error


def _unknown(target: Repository, chunks: list[bytes]) -> set[bytes]:
    missing = set(chunks) - target.catalog.chunks.known(chunks)
    if missing and not target.catalog.database.read_only:
        missing -= target.vouch(missing)
    return missing


def shared_versions(source: Log, target: Log) -> dict[str, list[Version]]:
    """The versions of the source, by root, whose content is that of some version of the target: all they need is
    there."""
    there = {_content(version) for root in target.roots() for version in target.versions(root)}
    return {root: [one for one in source.versions(root) if _content(one) in there] for root in source.roots()}


def _content(version: Version) -> tuple[Content, bytes | None]:
    return version.record.entry.content, version.record.links


def _base(item: Item, shared: dict[str, list[Version]]) -> VersionRecord | None:
    """The shared version that is most like one: the newest before it, else the oldest behind it."""
    candidates = shared.get(item.record.root, [])
    before = [one for one in candidates if one.made_in <= item.names[0].made_in]
    chosen = before[-1] if before else candidates[0] if candidates else None
    return chosen.record if chosen else None


def _commit(source: Repository, target: Repository, item: Item, began_at: int, done: Transferred) -> None:
    slot = item.there
    for record in records(item, source.log):
        if isinstance(record, TagRecord):
            assert slot is not None
            record = msgspec.structs.replace(record, slot=slot)
        try:
            version = commit_copy(target, record, began_at)
        except VersionExists:
            # Another transfer of the same was faster.
            there = target.log.used(record.root, record.name)
            if there is None or target.log.is_removed(there) or not same_content(item.record, there.record):
                raise
            version = there
            done.existing.append(str(version))
        else:
            done.versions.append(str(version))
        slot = version.made_in
