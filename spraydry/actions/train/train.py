"""Training dictionaries: candidates for each class, measured on frames that were held out, adopted where they pay."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from spraydry.actions.progress import Done, Report, unheard
from spraydry.actions.train.samples import (
    SAMPLE_BYTES,
    Frame,
    HeldOut,
    Lot,
    Source,
    folder_samples,
    framed,
    held_out_frames,
    read_samples,
    stored_samples,
)
from spraydry.errors import SprayDryError, UsageError
from spraydry.format import dictionary as dictionaries
from spraydry.format.classes import NAMES
from spraydry.format.frame import MAX_DICTIONARY_BYTES, Dictionary
from spraydry.format.version import DictionariesRecord
from spraydry.parallel import ordered_map
from spraydry.repository.dictionaries import adopt, keep, remember_gains, shipped
from spraydry.repository.repository import Repository
from spraydry.repository.writer import FRAME_TARGET_BYTES

DEFAULT_MEMORY_BYTES = 64 << 20
_MIN_MEMORY_BYTES = 8 << 20
_SAMPLES_FACTOR = 100  # bytes to train from for each byte of dictionary; more was not measurably better
_HELD_OUT_BYTES = 8 << 20

# A gain below one part in a hundred may be chance, and a dictionary costs a reader time.
_WORTH = 0.01
_SMALLER = 4  # besides dictionaries of the size asked for, ones of a quarter of it are tried


@dataclass(frozen=True)
class Gain:
    """What was measured for one class, and what came of it; bytes.

    `stored_bytes` is what the frames of the class take (for a class of which nothing is stored yet: what the outside
    files would take). The held-out frames take `before_bytes` as new frames are made until now, `plainly_bytes` without
    any dictionary, and `after_bytes` with the best one. `saving_bytes` is the difference between the first and the last
    for all of the class, less the `cost_bytes` of storing that dictionary; it comes in as frames are written anew.
    `reason` says why a candidate is adopted or not.
    """

    frame_class: str
    stored_bytes: int
    sampled_bytes: int
    held_out_bytes: int
    plainly_bytes: int
    before_bytes: int
    after_bytes: int
    cost_bytes: int
    saving_bytes: int
    candidate: str
    dictionary: bytes | None
    pays: bool
    reason: str

    @property
    def gain(self) -> float:
        """The saving as a part of what the class takes."""
        return self.saving_bytes / self.stored_bytes if self.stored_bytes else 0.0


@dataclass(frozen=True)
class Trained:
    """What came of training: the table of gains, and the slot that adopted what pays (None: nothing was adopted)."""

    gains: tuple[Gain, ...]
    slot: int | None


@dataclass(frozen=True)
class _Candidate:
    name: str
    dictionary: Dictionary | None
    cost_bytes: int


def train(
    repository: Repository,
    addresses: Sequence[str] = (),
    folders: Sequence[str] = (),
    *,
    size_bytes: int = dictionaries.DEFAULT_BYTES,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    dry_run: bool = False,
    report: Report = unheard,
) -> Trained:
    """Make a dictionary of at most `size_bytes` for each class, and adopt those that pay.

    Samples come from the versions named (default, unless `folders` are given: the newest of every root) and from
    `folders` outside. A file of which any chunk was held out is no sample. Each candidate (none, the one in use, the
    shipped one, new ones) is measured on stored frames as they are, of a class without any on frames made of every
    fourth outside file. The same repository and files give the same dictionaries. With `dry_run` nothing is adopted.
    Raises UsageError, RootNotFound, VersionNotFound, PathNotFound.
    """
    if not dictionaries.MIN_BYTES <= size_bytes <= MAX_DICTIONARY_BYTES:
        raise UsageError(f"a dictionary has {dictionaries.MIN_BYTES >> 10}K to {MAX_DICTIONARY_BYTES >> 20}M bytes")
    if memory_bytes < _MIN_MEMORY_BYTES:
        raise UsageError(f"training needs at least {_MIN_MEMORY_BYTES >> 20}M of memory")
    repository.refresh()
    if not addresses and not folders:
        addresses = repository.log.roots()
    stored = {name: 0 for name in NAMES}
    plain = {name: 0 for name in NAMES}
    for usage in repository.catalog.usage():
        stored[usage.frame_class] = stored.get(usage.frame_class, 0) + usage.stored
        plain[usage.frame_class] = plain.get(usage.frame_class, 0) + usage.plain
    gains = {
        name: Gain(name, stored[name], 0, 0, 0, 0, 0, 0, 0, "", None, False, "")
        for name in stored
        if stored[name] or folders
    }
    for name, gain in gains.items():
        if stored[name] and stored[name] > 0.95 * plain[name] and plain[name] > SAMPLE_BYTES:
            gains[name] = replace(gain, reason="does not compress")
        elif 0 < stored[name] < 4 * dictionaries.MIN_BYTES:
            gains[name] = replace(gain, reason="too little is stored")
    wanted = [name for name, gain in gains.items() if not gain.reason]
    # Held-out frames of all classes are there at once, samples of one class at a time.
    held_out_bytes = min(_HELD_OUT_BYTES, memory_bytes // 2 // max(len(wanted), 1))
    sample_bytes = min(_SAMPLES_FACTOR * size_bytes, memory_bytes // 4)

    report(Done("sampling"))
    held_out = held_out_frames(repository, {name: held_out_bytes for name in wanted if stored[name]})
    lots: dict[str, Lot[Source]] = {name: Lot(sample_bytes) for name in wanted}
    apart: dict[str, Lot[Source]] = {name: Lot(held_out_bytes) for name in wanted if not stored[name]}
    outside: dict[str, int] = {}
    stored_samples(repository, addresses, lots, held_out)
    for folder in folders:
        folder_samples(folder, lots, apart, outside)
    changes: dict[str, bytes | None] = {}
    chosen: list[Dictionary] = []
    for done, name in enumerate(wanted):
        report(Done(f"training {name}", done, total_files=len(wanted), counted="classes"))
        held = held_out.get(name) or framed(apart[name])
        samples = read_samples(repository, lots.pop(name), held)
        gains[name], best = _judge(repository, gains[name], held, samples, size_bytes, outside.get(name, 0))
        if gains[name].pays:
            changes[name] = best.digest if best else None
            chosen += [best] if best else []
    slot = None
    if changes and not dry_run:
        for dictionary in chosen:
            keep(repository, dictionary)
        slot = adopt(repository, changes, "train")
        remember_gains(
            repository, {gain.dictionary: gain.gain for gain in gains.values() if gain.pays and gain.dictionary}
        )
    shown = [gain for gain in gains.values() if gain.stored_bytes or gain.sampled_bytes]
    return Trained(tuple(sorted(shown, key=lambda gain: -gain.stored_bytes)), slot)


def _judge(
    repository: Repository, gain: Gain, held: HeldOut, samples: Sequence[bytes], size_bytes: int, outside_bytes: int
) -> tuple[Gain, Dictionary | None]:
    """Measure every candidate for a class; the row for the table, and the best dictionary (None: none at all)."""
    name = gain.frame_class
    gain = replace(gain, sampled_bytes=sum(map(len, samples)), held_out_bytes=held.plain_bytes)
    if not held.frames:
        return replace(gain, reason="too little is stored"), None
    candidates = _candidates(repository, name, samples, size_bytes)
    taken = dict(
        zip(candidates, ordered_map(lambda one: _takes(held.frames, name, one.dictionary), candidates), strict=True)
    )
    before = next((one for one in candidates if one.name == "in use"), candidates[0])
    # What is measured stands for all that is stored; or, where nothing is, for all files outside. These would fill
    # their frames better than a sample does, and a dictionary saves most where a frame begins, so frames count.
    now_bytes = sum(frame.stored_bytes for frame in held.frames)
    if now_bytes:
        scale = gain.stored_bytes / now_bytes
    else:
        gain = replace(gain, stored_bytes=round(taken[before] * outside_bytes / held.plain_bytes))
        scale = math.ceil(outside_bytes / FRAME_TARGET_BYTES) / len(held.frames)
    rivals = [one for one in candidates if one is not before] or [before]
    rival = min(rivals, key=lambda one: taken[one] * scale + one.cost_bytes)
    saving = math.floor((taken[before] - taken[rival]) * scale) - rival.cost_bytes
    gain = replace(
        gain,
        plainly_bytes=taken[candidates[0]],
        before_bytes=taken[before],
        after_bytes=taken[rival],
        cost_bytes=rival.cost_bytes,
        saving_bytes=saving,
        candidate=rival.name,
        dictionary=rival.dictionary.digest if rival.dictionary else None,
    )
    if rival is before:
        return replace(gain, reason="too few samples to train from"), None
    if saving <= 0:
        what = "saves nothing" if taken[rival] >= taken[before] else "saves less than it takes itself"
        return replace(gain, reason=what), None
    if gain.gain < _WORTH:
        return replace(gain, reason=f"saves less than {_WORTH:.0%}"), None
    return replace(gain, pays=True, reason="pays"), rival.dictionary


def _candidates(repository: Repository, name: str, samples: Sequence[bytes], size_bytes: int) -> list[_Candidate]:
    """No dictionary, the one in use, the shipped one, and new ones of two sizes; each once. Of one that was given up
    another is made: its name never comes back."""
    found: dict[bytes | None, _Candidate] = {None: _Candidate("none", None, 0)}

    def add(label: str, load: Callable[[], Dictionary | None]) -> None:
        try:
            dictionary = load()
        except SprayDryError:
            return  # gone or damaged: writers do without it, too
        while dictionary is not None and dictionary.digest in repository.log.dropped:
            dictionary = dictionaries.another(dictionary)
        if dictionary is not None and dictionary.digest not in found:
            stored = repository.store.info("dictionaries", dictionary.digest.hex()) is not None
            found[dictionary.digest] = _Candidate(label, dictionary, 0 if stored else len(dictionary.plain))

    if used := repository.log.dictionaries.get(name):
        add("in use", partial(repository.dictionary, used))
    for one in shipped():
        if one.frame_class == name:
            add("shipped", one.load)
    for size in (size_bytes, max(size_bytes // _SMALLER, dictionaries.MIN_BYTES)):
        add("trained", partial(dictionaries.train, samples, size))
    return list(found.values())


def _takes(frames: Sequence[Frame], frame_class: str, dictionary: Dictionary | None) -> int:
    return sum(dictionaries.stored_bytes([frame.chunks], frame_class, frame.level, dictionary) for frame in frames)


def undo(repository: Repository) -> tuple[int | None, dict[str, bytes]]:
    """Go back to the dictionaries in use before the last change of them; the slot (None: nothing changed) and the set.

    Frames are left as they are, and dictionaries stay stored; done twice, it takes itself back. One that was given up
    meanwhile is not taken into use again. Raises UsageError where nothing was ever adopted.
    """
    repository.refresh()
    records = [record for record in repository.log.records if isinstance(record, DictionariesRecord)]
    if not records:
        raise UsageError("nothing to undo: no dictionary was ever adopted in this repository")
    before = dict(records[-2].adopted) if len(records) > 1 else {}
    before = {one: name for one, name in before.items() if name not in repository.log.dropped}
    changes = {name: before.get(name) for name in {*before, *repository.log.dictionaries}}
    return adopt(repository, changes, "train --undo"), before
