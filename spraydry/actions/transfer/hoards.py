"""Keys of hoards from one repository to another: what is missing there, and what is older."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from spraydry.actions.hoard import commit_changes
from spraydry.actions.progress import Done, Report
from spraydry.actions.transfer.again import until_whole
from spraydry.actions.transfer.needed import Reader, needed_by_files
from spraydry.actions.transfer.plan import Plan
from spraydry.actions.transfer.send import Sender
from spraydry.errors import Conflict, KeyExists
from spraydry.format.entry import Entry
from spraydry.format.keys import name_of
from spraydry.format.version import HoardRecord
from spraydry.repository.hoards import View
from spraydry.repository.keys import Kept, Keys
from spraydry.repository.leases import Lease
from spraydry.repository.repository import Repository
from spraydry.repository.writer import Writer
from spraydry.stores.database.scratch import scratch_errors

_TOGETHER = 10_000
_TOLD = 5


@dataclass
class KeysTransferred:
    """What was (or would be) transferred of a hoard: `keys` that were missing, `updated` ones that named there what
    they once did here. `existing` name the same there, `newer` there what came after what they name here."""

    hoard: str
    keys: int = 0
    updated: int = 0
    existing: int = 0
    newer: int = 0
    sent_bytes: int = 0


@dataclass
class HoardChoice:
    """What is to be transferred of a hoard: keys that are missing, and of those that differ the ones in `replaced`, as
    long as they name there what that says. The ones in `newer` stay."""

    hoard: str
    done: KeysTransferred
    replaced: dict[str, Entry] = field(default_factory=dict)
    newer: set[str] = field(default_factory=set)

    def wants(self, pair: _Pair) -> bool:
        """Whether a key is to be transferred. Raises Conflict where it was another one when this was chosen."""
        if pair.there is None:
            return True
        if _same(pair.here, pair.there) or pair.key in self.newer:
            return False
        if self.replaced.get(pair.key) != pair.there:
            raise _changed(self.hoard)
        return True


class _Pair(NamedTuple):
    key: str
    here: Entry
    there: Entry | None


def choose_keys(source: Repository, target: Repository, hoard: str, overwrite: bool) -> HoardChoice:
    """Compare the keys of a hoard. One that differs is replaced where it was the same once, or with `overwrite`; where
    it is the newer one there it stays. Raises KeyExists, naming some, for those of which neither knows the other's."""
    done = KeysTransferred(hoard)
    choice = HoardChoice(hoard, done)
    differing: dict[str, tuple[Entry, Entry]] = {}
    for pair in _pairs(source, target, hoard):
        if pair.there is None:
            done.keys += 1
        elif _same(pair.here, pair.there):
            done.existing += 1
        else:
            differing[pair.key] = pair.here, pair.there
    if differing and not overwrite:
        # Each put has a time of its own: so the entry here is among those that were there only if it came from there,
        # or went there, and what is there now came later.
        here = {key: entry for key, (entry, _) in differing.items()}
        choice.newer = _ever(target, hoard, here, lambda one, other: one == other)
        rest = {key: there for key, (_, there) in differing.items() if key not in choice.newer}
        known = _ever(source, hoard, rest, _same) if rest else set()
        done.newer = len(choice.newer)
        if conflicts := sorted(rest.keys() - known):
            told = ", ".join(f"{hoard}/{key}" for key in conflicts[:_TOLD])
            more = f" and {len(conflicts) - _TOLD:,} more" if len(conflicts) > _TOLD else ""
            raise KeyExists(
                f"{told}{more} {'name' if len(conflicts) > 1 else 'names'} something else there: nothing was"
                " transferred; --overwrite replaces it by what is here"
            )
    else:
        rest = {key: there for key, (_, there) in differing.items()}
    choice.replaced = rest
    done.updated = len(choice.replaced)
    return choice


def transfer_keys(
    source: Repository,
    target: Repository,
    choice: HoardChoice,
    *,
    contents: bool = True,
    dry_run: bool = False,
    report: Report,
) -> None:
    """Copy what was chosen, some thousand keys at a time, each whole as soon as it is there; what was copied when it
    ends counts the next time. Counts in the choice's `done`. Raises Conflict where others change these keys there
    meanwhile, ChunkNotFound, ChunkCorrupt, StoreError."""
    hoard, done = choice.hoard, choice.done
    count, after = 0, ""
    while True:
        # Each part as it is there now: the one before may have taken long.
        view = target.log.hoards.view(hoard)
        part = list(islice(filter(choice.wants, _pairs(source, target, hoard, after)), _TOGETHER))
        if not part:
            return
        if dry_run:
            done.sent_bytes += send_files(source, target, [pair.here for pair in part], contents, dry_run)
        else:
            _send(source, target, part, view, contents, done)
        count, after = count + len(part), part[-1].key
        report(Done(f"copying {hoard}", count, done.sent_bytes, done.keys + done.updated, counted="keys"))


def _send(
    source: Repository, target: Repository, part: Sequence[_Pair], view: View, contents: bool, done: KeysTransferred
) -> None:
    """Copy some keys, all of which are there then, or none; `view` is where they were compared."""
    hoard = done.hoard

    def check() -> None:
        now = target.log.hoards.view(hoard)
        keys = Keys(now, target.tree)
        for pair in part:
            if now.upto == view.upto and name_of(pair.key) not in now.changes:
                continue
            there = keys.find(pair.key)
            if there != pair.there and not (there is not None and _same(pair.here, there)):
                raise _changed(hoard)

    def attempt(lease: Lease) -> None:
        began_at = target.heed()
        done.sent_bytes += send_files(source, target, [pair.here for pair in part], contents, False, lease)
        commit_changes(target, hoard, {pair.key: pair.here for pair in part}, began_at, verb="push", check=check)

    until_whole(target, attempt)


def _changed(hoard: str) -> Conflict:
    return Conflict(f"keys of {hoard!r} were changed meanwhile: run it again")


def fill_keys(source: Repository, target: Repository, hoard: str, dry_run: bool) -> int:
    """Bring to a lazy clone what the keys of a hoard still lack; how many bytes that takes."""
    sent = 0
    keys = Keys(target.log.hoards.view(hoard), target.tree).list()
    while part := list(islice(keys, _TOGETHER)):
        sent += send_files(source, target, [kept.entry for kept in part], True, dry_run)
    return sent


def send_files(
    source: Repository,
    target: Repository,
    files: Sequence[Entry],
    contents: bool,
    dry_run: bool,
    lease: Lease | None = None,
) -> int:
    """Copy the chunks of files that the target lacks; they are durable when it returns. How many bytes that takes. The
    `lease` keeps what is stored there from collection until something names it; by default one of its own does, until
    it returns."""
    reader = Reader(source, target)
    with scratch_errors(), ExitStack() as stack:
        plan = Plan(source, lambda chunks: _unknown(target, chunks))
        stack.callback(plan.close)
        chunks = needed_by_files(reader, files)
        plan.add(0, chunks if contents else (chunk for chunk in chunks if not chunk.content))
        totals = plan.settle()
        if dry_run:
            return totals.bytes
        writer = stack.enter_context(Writer(target, plan.level, lease=lease))
        Sender(source, target, plan, writer, lambda _: None).send(0)
        return writer.finish().stored_bytes


def _unknown(target: Repository, chunks: list[bytes]) -> set[bytes]:
    missing = set(chunks) - target.catalog.chunks.known(chunks)
    if missing and not target.catalog.database.read_only:
        missing -= target.vouch(missing)
    return missing


def _pairs(source: Repository, target: Repository, hoard: str, after: str = "") -> Iterator[_Pair]:
    """The keys of the source behind `after` with what they name on both sides, in their order."""
    there = Keys(target.log.hoards.view(hoard), target.tree).list(after=after)
    other: Kept | None = next(there, None)
    for kept in Keys(source.log.hoards.view(hoard), source.tree).list(after=after):
        name = name_of(kept.key)
        while other is not None and name_of(other.key) < name:
            other = next(there, None)
        same = other is not None and other.key == kept.key
        yield _Pair(kept.key, kept.entry, other.entry if same and other is not None else None)


def _same(one: Entry, other: Entry) -> bool:
    return (one.size, one.content) == (other.size, other.content)


def _ever(
    repository: Repository, hoard: str, entries: Mapping[str, Entry], same: Callable[[Entry, Entry], bool]
) -> set[str]:
    """Those keys that ever named the same."""
    found: set[str] = set()
    for _, record in repository.log.reread(repository.log.puts(hoard)):
        assert isinstance(record, HoardRecord)
        for key, entry in record.changes:
            if entry is not None and key in entries and same(entry, entries[key]):
                found.add(key)
    return found
