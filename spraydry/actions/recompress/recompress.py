"""Replacing stored frames by smaller ones under live readers, in batches that a crash anywhere leaves whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from spraydry.actions.progress import Done, Report, unheard
from spraydry.actions.recompress.groups import Examined, Goal, Group, Outcome, encode_anew, groups, rows_of
from spraydry.errors import SprayDryError, StoreUnavailable, UsageError
from spraydry.format import frame as frames
from spraydry.format.digest import digest
from spraydry.format.run import encode_run
from spraydry.parallel import ordered_map
from spraydry.repository.condemned import clean_runs, give_up
from spraydry.repository.repository import Repository

_BATCH_BYTES = 32 << 20
_STATE = "recompress"


@dataclass
class Recompressed:
    """What a run did; bytes and numbers of frames.

    `tried_bytes` counts the plain bytes that were decoded and encoded. Of the frames they lay in, `old_frames`, which
    took `old_bytes`, gave way to `new_frames`, which take `new_bytes`; the others would not have become smaller.
    `damaged` frames (with the reason) were left alone. `recovered` frames were left over from a run that was killed.
    Not `complete`: the budget ended it.
    """

    tried_bytes: int = 0
    old_frames: int = 0
    new_frames: int = 0
    old_bytes: int = 0
    new_bytes: int = 0
    recovered: int = 0
    complete: bool = True
    damaged: list[tuple[bytes, str]] = field(default_factory=list)

    @property
    def saved_bytes(self) -> int:
        """What became free."""
        return self.old_bytes - self.new_bytes


class _State(msgspec.Struct):
    """What the catalog remembers between runs.

    `replaced`: the frames a batch was about to replace, kept until they are gone. `dirty`: index runs may name such
    frames. `examined`: by line of frames, what need not be tried again.
    """

    replaced: list[bytes] = []
    dirty: bool = False
    examined: dict[str, Examined] = {}


def recompress(
    repository: Repository,
    *,
    level: int = frames.DEFAULT_LEVEL,
    budget_bytes: int | None = None,
    dry_run: bool = False,
    report: Report = unheard,
) -> Recompressed:
    """Encode stored frames anew where that makes them smaller: with the dictionaries in use, at least `level`, and
    small neighbouring frames of a class merged into full ones.

    No content and no digest changes, readers go on reading. It stops after `budget_bytes` of plain bytes, and goes on
    from there when called again; a crash loses nothing but the batch being worked on. With `dry_run` everything is
    tried and nothing written. Raises UsageError, StoreError, and DictionaryMissing where one that is in use is gone.
    """
    if level not in frames.LEVELS:
        raise UsageError(f"zstd has no level {level} (write one from {frames.LEVELS[0]} to {frames.LEVELS[-1]})")
    if repository.opened.origin is not None:
        raise UsageError("a lazy clone keeps frames as its origin has them: `spraydry pull` makes it whole first")
    repository.refresh()
    state = _remembered(repository)
    done = Recompressed()
    if not dry_run:
        done.recovered = _recover(repository, state)
    total = 0
    goals = {}
    for usage in repository.catalog.usage():
        adopted = repository.log.dictionaries.get(usage.frame_class)
        goals[usage.frame_class] = Goal(level, repository.dictionary(adopted) if adopted else None)
        total += usage.plain
    last = repository.catalog.newest_frame()
    batch: list[Outcome] = []
    in_batch = 0
    candidates = groups(repository, goals, dict(state.examined), last, repository.log.condemned)
    for outcome in ordered_map(
        lambda group: encode_anew(repository, group), _within(candidates, budget_bytes, done, report, total)
    ):
        batch.append(outcome)
        in_batch += outcome.group.plain_bytes
        if in_batch >= _BATCH_BYTES:
            _take(repository, state, batch, done, dry_run)
            batch, in_batch = [], 0
    _take(repository, state, batch, done, dry_run)
    if not dry_run:
        _clean_runs(repository, state)
        repository.store.flush()
    return done


def _within(
    candidates: Iterable[Group], budget_bytes: int | None, done: Recompressed, report: Report, total: int
) -> Iterator[Group]:
    """The groups until the budget is spent; at least one."""
    for group in candidates:
        if budget_bytes is not None and done.tried_bytes and done.tried_bytes + group.plain_bytes > budget_bytes:
            done.complete = False
            return
        done.tried_bytes += group.plain_bytes
        report(Done("recompressing", bytes=done.tried_bytes, total_bytes=min(total, budget_bytes or total)))
        yield group


def _take(repository: Repository, state: _State, batch: list[Outcome], done: Recompressed, dry_run: bool) -> None:
    """Let new frames take the place of old ones. The order is what a crash needs:

    1. the names of the old frames are remembered;
    2. new frames are stored, and an index run that names them: every chunk is in two places now;
    3. the old frames are condemned in the log: nobody counts on them any more;
    4. the old frames leave the index and the store; readers that still looked for them look again.

    A crash before 2 leaves nothing but unreferenced bytes. After it the next run finds the names of 1, sees that every
    chunk in these frames is in others too, and goes on at 3.
    """
    for outcome in batch:
        done.damaged += outcome.damaged
    worth = [outcome for outcome in batch if outcome.new]
    if not dry_run:
        worth = _replace(repository, state, worth)
    for outcome in worth:
        done.old_frames += len(outcome.old)
        done.old_bytes += sum(info.stored for info in outcome.old)
        done.new_frames += len(outcome.new)
        done.new_bytes += sum(len(encoded.stored) for _, encoded in outcome.new)
    if batch and not dry_run:
        for outcome in batch:
            group = outcome.group
            state.examined[group.line] = Examined(str(group.goal), group.ids[-1])
        _remember(repository, state)


def _replace(repository: Repository, state: _State, worth: list[Outcome]) -> list[Outcome]:
    """Steps 1 to 4; those of `worth` that were still there to be replaced."""
    if not worth:
        return []
    state.replaced = [info.name for outcome in worth for info in outcome.old]
    state.dirty = True
    _remember(repository, state)
    with repository.batch():
        has = repository.catalog.has_frame
        worth = [outcome for outcome in worth if all(has(info.name) for info in outcome.old)]
        new = [pair for outcome in worth for pair in outcome.new]
        if new:
            repository.store.put_many("frames", ((encoded.name.hex(), encoded.stored) for _, encoded in new))
            infos, rows = rows_of(new)
            run = encode_run(infos, rows)
            name = digest(run).hex()
            repository.store.put("index", name, run)
            repository.catalog.add_run(name, infos, rows, verified=True)
    made = {encoded.name for outcome in worth for _, encoded in outcome.new}
    used = {encoded.header.dictionary for outcome in worth for _, encoded in outcome.new}

    def check() -> None:
        if made & repository.log.condemned or used & repository.log.dropped:
            raise StoreUnavailable("what recompress stored was collected meanwhile; run it again")

    give_up(repository, [info.name for outcome in worth for info in outcome.old], "recompress", check)
    state.replaced = []
    _remember(repository, state)
    return worth


def _recover(repository: Repository, state: _State) -> int:
    """Finish what a run that was killed had begun: remove frames all of whose chunks are in others. Their number."""
    doomed, looked_at = set(state.replaced), repository.log.head[0]

    def check() -> None:
        if repository.log.given_up_since(looked_at):
            raise StoreUnavailable("other frames were collected meanwhile; run it again")

    gone = [
        name
        for name in sorted(doomed)
        if repository.store.info("frames", name.hex()) is not None and _lives_elsewhere(repository, name, doomed)
    ]
    if gone:
        give_up(repository, gone, "recompress", check)
    if state.replaced:
        state.replaced, state.dirty = [], True
        _remember(repository, state)
    return len(gone)


def _lives_elsewhere(repository: Repository, name: bytes, doomed: set[bytes]) -> bool:
    """Whether each chunk of a frame can be had from a frame that stays. A damaged one is not judged."""
    try:
        _, rows, _ = repository.decode_frame(name)
    except SprayDryError:
        return False
    needed = {row.digest for row in rows}
    while needed:
        found_in = {place.frame for place in repository.catalog.chunks.locate(next(iter(needed)))}
        places = {frame for frame in found_in - doomed if not repository.catalog.is_condemned(frame)}
        for other in places:
            try:
                _, found, _ = repository.decode_frame(other)
            except SprayDryError:
                continue
            before = len(needed)
            needed.difference_update(row.digest for row in found)
            if len(needed) < before:
                break
        else:
            return False
    return True


def _clean_runs(repository: Repository, state: _State) -> None:
    """Write the index runs that name removed frames anew without them."""
    if not state.dirty:
        return
    clean_runs(repository)
    state.dirty = False
    _remember(repository, state)


def _remembered(repository: Repository) -> _State:
    value = repository.catalog.state(_STATE)
    try:
        return msgspec.msgpack.decode(value, type=_State) if value else _State()
    except msgspec.MsgspecError:
        return _State()  # then frames are tried once more than needed


def _remember(repository: Repository, state: _State) -> None:
    repository.catalog.remember(_STATE, msgspec.msgpack.encode(state))
