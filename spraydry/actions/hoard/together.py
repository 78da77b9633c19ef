"""Changes to one hoard that several asked for at about the same time: one record for all, and each has its own end."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from spraydry.actions.hoard.commit import commit_changes
from spraydry.actions.hoard.copies import class_of_hoard, sink_of
from spraydry.actions.hoard.files import store_file
from spraydry.actions.hoard.small import MAX_BYTES, Condemned, SmallFiles
from spraydry.errors import SprayDryError, StoreUnavailable
from spraydry.format.entry import Entry
from spraydry.format.keys import name_of
from spraydry.repository.hoards import Change
from spraydry.repository.keys import Keys
from spraydry.repository.repository import Repository
from spraydry.repository.writer import Writer

_TRIES = 50


@dataclass
class Asked:
    """That `key` is to name `plain` bytes, or an `entry` which was stored before (when its first chunk was taken for
    known, `began_at` was the newest slot), or with neither nothing any more.

    `check` gets what the key names just before and may raise a SprayDryError, which is then `error`, to refuse. It may
    be called several times, and from any thread.
    """

    key: str
    plain: bytes | None = None
    entry: Entry | None = None
    began_at: int | None = None
    check: Callable[[Entry | None], None] = lambda _: None
    error: SprayDryError | None = None


def change_together(small: SmallFiles, hoard: str, asked: Sequence[Asked]) -> None:
    """Commit all that are not refused, as if they came one after another in this order: of several for one key the last
    one counts; by `small` what is small altogether. Not to be called in a batch. Raises UsageError for what can be no
    key, StoreError: then none was made.
    """
    repository = small.repository
    names = {one.key: name_of(one.key) for one in asked}
    brought = sum(len(one.plain or b"") for one in asked)
    small_all = brought <= MAX_BYTES and all(one.began_at is None for one in asked)
    if small_all and class_of_hoard(repository, hoard) is None:
        try:
            _tried(hoard, partial(_change_small, small, hoard, asked, names))
            return
        except Condemned:
            pass
    heeded = repository.heed()  # nobody is refused for what is not so any more
    began_at = min([heeded, *(one.began_at for one in asked if one.began_at is not None)])
    with ExitStack() as stack:
        if any(one.plain is not None for one in asked):
            writer = stack.enter_context(Writer(repository))
            for one in asked:
                if one.plain is not None:
                    one.entry = store_file(sink_of(writer, hoard), io.BytesIO(one.plain), one.key)
            writer.finish()

        def change() -> None:
            seen = _State(repository, hoard, names)
            if changes := seen.after(asked):
                commit_changes(repository, hoard, changes, began_at, check=seen.check)

        _tried(hoard, change)


def _change_small(small: SmallFiles, hoard: str, asked: Sequence[Asked], names: dict[str, bytes]) -> None:
    new = [one for one in asked if one.plain is not None]
    seen: _State | None = None

    def changes_of(entries: list[Entry]) -> Mapping[str, Entry | None]:
        nonlocal seen
        for one, entry in zip(new, entries, strict=True):
            one.entry = entry
        seen = _State(small.repository, hoard, names)
        return seen.after(asked)

    def check() -> None:
        assert seen is not None
        seen.check()

    small.put(hoard, [(one.key, one.plain or b"") for one in new], changes_of, check)


def _tried(hoard: str, change: Callable[[], None]) -> None:
    """Call it until nobody else is faster. Raises StoreUnavailable where others always are."""
    for _ in range(_TRIES):
        try:
            change()
            return
        except _Overtaken:
            continue
    raise StoreUnavailable(f"others changed the same keys of {hoard!r} {_TRIES} times meanwhile; try again")


class _State:
    """What some keys name at a time."""

    def __init__(self, repository: Repository, hoard: str, names: dict[str, bytes]) -> None:
        self._repository = repository
        self._hoard = hoard
        self._names = names
        self._found = self._look()

    def after(self, asked: Sequence[Asked]) -> dict[str, Entry | None]:
        """What the keys are to name then; who is refused gets an error."""
        keys = Keys(self._repository.log.hoards.view(self._hoard), self._repository.tree)
        now: dict[str, Entry | None] = {}
        before: dict[str, Entry | None] = {}
        for one in asked:
            if one.key not in before:
                before[one.key] = keys.find(one.key)
            try:
                one.check(now.get(one.key, before[one.key]))
            except SprayDryError as error:
                one.error = error
            else:
                one.error = None
                now[one.key] = one.entry
        return {key: entry for key, entry in now.items() if entry is not None or before[key] is not None}

    def check(self) -> None:
        """Raises _Overtaken where one of them was changed since."""
        base, changes = self._look()
        if base is not self._found[0] or any(a is not b for a, b in zip(changes, self._found[1], strict=True)):
            raise _Overtaken

    def _look(self) -> tuple[object, list[Change | None]]:
        view = self._repository.log.hoards.view(self._hoard)
        return view.base, [view.changes.get(name) for name in self._names.values()]


class _Overtaken(Exception):
    pass
