"""On which members frames lie, so that an index run can be split into one for each member."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from spraydry.errors import CorruptData, StoreError
from spraydry.format.digest import digest
from spraydry.format.run import FrameInfo, decode_run, encode_run
from spraydry.stores.over.member import Member

_FRAMES_KEPT = 1 << 17  # about 16 MiB


class Whereabouts:
    """What this process knows of where frames lie: those it wrote and did not index yet, and those that runs it read
    name, for these are merged next. Asks members for the rest. Blocks; threads may share it."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._written: OrderedDict[bytes, tuple[Member, ...]] = OrderedDict()
        self._runs: OrderedDict[str, frozenset[bytes]] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

    def wrote(self, name: bytes, members: Iterable[Member]) -> None:
        """Note that a frame was written to these members."""
        with self._lock:
            self._written[name] = tuple(members)
            if len(self._written) > _FRAMES_KEPT:
                self._written.popitem(last=False)

    def read_run(self, name: str, run: bytes) -> None:
        """Note which frames a run names."""
        with self._lock:
            if name in self._runs:
                return
            try:
                infos, _ = decode_run(run)
            except CorruptData:
                return
            self._runs[name] = frozenset(info.name for info in infos)
            self._held += len(infos)
            while self._held > _FRAMES_KEPT and len(self._runs) > 1:
                self._held -= len(self._runs.popitem(last=False)[1])

    def forget(self) -> None:
        """What was written may have been rolled back."""
        with self._lock:
            self._written.clear()

    def of(
        self, infos: Sequence[FrameInfo], ask: Callable[[Member, str, str], bool]
    ) -> tuple[dict[bytes, set[Member]], bool]:
        """The members that have each frame, and whether all these frames are new: written since they were last asked
        for. `ask(member, namespace, name)` says whether a member has something."""
        wanted = {info.name for info in infos}
        found: dict[bytes, set[Member]] = {}
        with self._lock:
            for name in wanted:
                if (members := self._written.pop(name, None)) is not None:
                    found[name] = set(members)
            runs = list(self._runs.items())
        if found.keys() == wanted:
            return found, True
        written = set(found)
        for run, names in runs:
            if meant := (names & wanted) - written:
                holders = [member for member in self._members if ask(member, "index", run)]
                for name in meant:
                    found.setdefault(name, set()).update(holders)
        for name in wanted:
            if not found.get(name):
                found[name] = {member for member in self._members if ask(member, "frames", name.hex())}
        return found, False


def split_run(run: bytes, names: frozenset[bytes]) -> bytes:
    """The run of those of its frames that are in `names`; the run itself where that is all of them."""
    infos, rows = decode_run(run)
    kept = [place for place, info in enumerate(infos) if info.name in names]
    if len(kept) == len(infos):
        return run
    places = {old: new for new, old in enumerate(kept)}
    return encode_run(
        [infos[place] for place in kept],
        (row._replace(frame=places[row.frame]) for row in rows if row.frame in places),
    )


def decodes(name: str, value: bytes) -> tuple[FrameInfo, ...] | None:
    """The frames of a run; None for what is none, or not under its name."""
    if digest(value).hex() != name:
        return None
    try:
        infos, rows = decode_run(value)
        for _ in rows:
            pass
    except (CorruptData, StoreError):
        return None
    return infos
