"""What the log says of hoards: of each the newest checkpoint, and what was changed since."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from spraydry.errors import CorruptData, HoardNotFound
from spraydry.format.entry import Entry, Subtree
from spraydry.format.keys import name_of
from spraydry.format.version import CheckpointRecord, HoardRecord, decode_record

# So many records, of so many bytes, wait undecoded for a checkpoint of their hoard: one comes after 16,384 changes.
_MOST_WAITING = 24_000
_MOST_WAITING_BYTES = 16 << 20


class Change(NamedTuple):
    """What a key names since a slot: an entry without a name, or nothing."""

    entry: Entry | None
    slot: int


class View(NamedTuple):
    """A hoard: the directory of a checkpoint (None: nothing) as of slot `upto`, and what was changed since, by the
    names of keys. The changes grow with the log; a newer checkpoint makes another view."""

    base: Entry | None
    upto: int
    changes: dict[bytes, Change]


@dataclass(frozen=True)
class Puts:
    """Stands in memory for each record that changed a hoard: what these say is in its view."""

    hoard: str


@dataclass
class _State:
    puts: Puts
    view: View = field(default_factory=lambda: View(None, 0, {}))
    waiting: dict[int, bytes] = field(default_factory=dict)  # records that the view lacks yet, by slot, as stored
    waiting_bytes: int = 0


class Hoards:
    """The hoards of a log, as far as it was read. Only the log changes it; other threads may read meanwhile."""

    def __init__(self) -> None:
        self._states: dict[str, _State] = {}

    def names(self) -> list[str]:
        """The hoards that may have keys, sorted."""
        return sorted(name for name, state in tuple(self._states.items()) if not _is_empty(state.view))

    def view(self, hoard: str) -> View:
        """What a hoard holds; nothing where there is none of that name."""
        state = self._states.get(hoard)
        return View(None, 0, {}) if state is None else state.view

    def existing(self, hoard: str) -> View:
        """As `view`. Raises HoardNotFound where the hoard was never put anything into."""
        if hoard not in self._states:
            names = ", ".join(self.names()[:5])
            there = f"there is {names}" if names else "there is none yet"
            raise HoardNotFound(f"there is no hoard {hoard!r}", f"; {there}: `spraydry put FILE {hoard}/KEY` makes it")
        return self._states[hoard].view

    def views(self) -> dict[str, View]:
        """All hoards that may have keys."""
        return {name: self.view(name) for name in self.names()}

    def check(self, slot: int, record: HoardRecord | CheckpointRecord) -> None:
        """Raises CorruptData for a record that cannot follow what is there."""
        if isinstance(record, HoardRecord):
            return
        if record.hoard not in self._states or record.upto < self._states[record.hoard].view.upto:
            raise CorruptData(f"log slot {slot} says what a hoard held when it did not")

    def take(self, slot: int, record: HoardRecord | CheckpointRecord) -> Puts | CheckpointRecord:
        """Heed a record; what is to be kept of it in memory."""
        if isinstance(record, CheckpointRecord):
            state = self._states[record.hoard]
            state.waiting = {slot: value for slot, value in state.waiting.items() if slot > record.upto}
            state.waiting_bytes = sum(map(len, state.waiting.values()))
            later = {name: change for name, change in state.view.changes.items() if change.slot > record.upto}
            state.view = View(record.entry, record.upto, later)
            return record
        found = self._states.get(record.hoard)
        if found is None:
            found = self._states[record.hoard] = _State(Puts(record.hoard))
        _settle(found)
        if record.cleared:
            found.view = View(None, slot, {})
        _lay_over(found.view, slot, record)
        return found.puts

    def take_later(self, slot: int, hoard: str, value: bytes) -> Puts | None:
        """As `take`, of a record as it is stored which changes a hoard, and does not clear it: it is decoded by
        `settle`, or never where a checkpoint comes before that which says what it did. None where the record is to be
        decoded now: the hoard is a new one. Raises as `settle`."""
        found = self._states.get(hoard)
        if found is None:
            return None
        if len(found.waiting) >= _MOST_WAITING or found.waiting_bytes >= _MOST_WAITING_BYTES:
            _settle(found)
        found.waiting[slot] = value
        found.waiting_bytes += len(value)
        return found.puts

    def settle(self) -> None:
        """Heed what waits. Raises CorruptData, FormatTooNew for a record that cannot be: then all of them must be read
        again."""
        for state in self._states.values():
            _settle(state)


def _settle(state: _State) -> None:
    for slot, value in state.waiting.items():
        record, _ = decode_record(value, slot)
        if not isinstance(record, HoardRecord) or record.hoard != state.puts.hoard or record.cleared:
            raise CorruptData(f"log slot {slot} is another one than it was")
        _lay_over(state.view, slot, record)
    state.waiting, state.waiting_bytes = {}, 0


def _lay_over(view: View, slot: int, record: HoardRecord) -> None:
    for key, entry in record.changes:
        # Also what was deleted: a checkpoint of an earlier slot, committed later, may still have it.
        view.changes[name_of(key)] = Change(entry, slot)


def _is_empty(view: View) -> bool:
    held = view.base is not None and isinstance(view.base.content, Subtree) and view.base.content.files
    return not held and all(change.entry is None for change in tuple(view.changes.values()))
