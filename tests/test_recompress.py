"""Recompressing: nothing changes but sizes, whoever reads meanwhile, and wherever it is stopped."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from spraydry.actions.collect import gc
from spraydry.actions.recompress import groups, recompress
from spraydry.actions.train import train
from spraydry.errors import SprayDryError, UsageError
from spraydry.format.digest import digest
from spraydry.format.run import decode_run
from spraydry.format.version import CondemnRecord
from spraydry.repository.condemned import condemn
from spraydry.repository.repository import Repository
from spraydry.stores.base import Store
from spraydry.stores.memory import MemoryStore
from tests.small_versions import read_all, small_versions
from tests.store_contract import size_of

replacing = sys.modules["spraydry.actions.recompress.recompress"]
T = TypeVar("T")
BATCH_BYTES = 16 << 10  # so that a small repository has several batches
TARGET_BYTES = 24 << 10


class Built:
    """A repository file to copy from, and what is in it."""

    def __init__(self, base: Path) -> None:
        self.path = base / "repository"
        with pytest.MonkeyPatch.context() as patch, Repository.open(str(self.path), create=True) as made:
            patch.setenv("XDG_CACHE_HOME", str(base / "cache"))
            self.files = small_versions(made, base / "small", random.Random(1), 40)
            self.digests = digests(made)

    def copy(self, place: Path) -> str:
        return str(shutil.copy(self.path, place))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("built"))


@pytest.fixture
def small(built: Built, tmp_path: Path) -> Iterator[Repository]:
    with Repository.open(built.copy(tmp_path / "copy")) as opened:
        yield opened


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replacing, "_BATCH_BYTES", BATCH_BYTES)
    monkeypatch.setattr(groups, "FRAME_TARGET_BYTES", TARGET_BYTES)


def digests(repository: Repository) -> dict[str, tuple[bytes | None, object]]:
    """Name and content of every entry of every version."""
    return {
        f"{version}:{one.path!r}": (one.entry.file_digest, one.entry.content)
        for version in repository.versions("small")
        for one in repository.walk(str(version))
    }


def stored_frames(repository: Repository) -> dict[str, int]:
    return {stored.name: stored.size for stored in repository.store.list("frames")}


def check_whole(url: str, built: Built) -> None:
    """Everything that was there is there, byte for byte, for a reader that has just come."""
    with Repository.open(url) as reader:
        assert read_all(reader) == built.files
        assert digests(reader) == built.digests


def check_clean(url: str, frames: int) -> None:
    """Nothing is there twice and nothing is left over."""
    with Repository.open(url) as reader:
        assert len(stored_frames(reader)) == sum(usage.frames for usage in reader.catalog.usage()) == frames
        named = set()
        for run in reader.store.list("index"):
            infos, _ = decode_run(reader.store.get("index", run.name))
            named |= {info.name.hex() for info in infos}
        assert named == set(stored_frames(reader))


def test_it_shrinks_and_changes_nothing(small: Repository, built: Built) -> None:
    before = stored_frames(small)
    done = recompress(small)
    after = stored_frames(small)
    assert done.complete and not done.damaged and done.recovered == 0
    assert len(after) < len(before) / 5
    assert done.saved_bytes == sum(before.values()) - sum(after.values()) > sum(before.values()) / 5
    small.close()
    check_whole(small.url, built)
    check_clean(small.url, len(after))


def test_done_again_it_does_nothing(small: Repository) -> None:
    recompress(small)
    frames, head = stored_frames(small), small.log.head
    again = recompress(small)
    assert (again.tried_bytes, again.old_frames, again.complete) == (0, 0, True)
    assert stored_frames(small) == frames and small.log.head == head


def test_what_gets_no_smaller_is_tried_once(small: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "_WORTH", 1)  # nothing is ever worth it
    first = recompress(small)
    assert first.tried_bytes > 0 and first.old_frames == 0
    assert recompress(small).tried_bytes == 0
    monkeypatch.undo()
    assert recompress(small).tried_bytes == 0
    assert recompress(small, level=12).old_frames > 0, "another level is another try"


def test_the_level_and_the_dictionaries_of_today(small: Repository, built: Built) -> None:
    train(small, size_bytes=16 << 10)
    wanted = small.log.dictionaries["json"]
    recompress(small, level=12)
    infos = [info for _, info in small.catalog.frames() if info.frame_class == "json"]
    assert infos and all(info.dictionary == wanted and info.level == 12 for info in infos)
    assert recompress(small, level=3).tried_bytes == 0, "a lower level is no reason to begin again"
    small.close()
    check_whole(small.url, built)


def test_a_budget_is_kept_and_gone_on_from(small: Repository, built: Built, small_batches: None) -> None:
    runs = 0
    while not (done := recompress(small, budget_bytes=40 << 10)).complete:
        assert 0 < done.tried_bytes <= 40 << 10
        runs += 1
    assert runs > 2
    assert recompress(small).tried_bytes == 0
    small.close()
    check_whole(small.url, built)


def test_a_dry_run_tells_the_numbers_and_changes_nothing(small: Repository) -> None:
    frames, head, state = stored_frames(small), small.log.head, small.catalog.state("recompress")
    told = recompress(small, dry_run=True)
    assert stored_frames(small) == frames and small.log.head == head and small.catalog.state("recompress") == state
    done = recompress(small)
    assert (told.old_frames, told.old_bytes, told.new_frames, told.new_bytes) == (
        done.old_frames,
        done.old_bytes,
        done.new_frames,
        done.new_bytes,
    )


def test_a_damaged_frame_is_told_and_left_alone(small: Repository, built: Built) -> None:
    victim = next(info for _, info in small.catalog.frames() if info.frame_class == "json")
    stored = bytearray(small.store.get("frames", victim.name.hex()))
    stored[-1] ^= 1
    small.store.put("frames", victim.name.hex(), bytes(stored))
    done = recompress(small)
    assert [name for name, _ in done.damaged] == [victim.name]
    assert small.store.get("frames", victim.name.hex()) == stored
    assert small.catalog.has_frame(victim.name)
    stored[-1] ^= 1
    small.store.put("frames", victim.name.hex(), bytes(stored))
    small.close()
    check_whole(small.url, built)


def test_bad_level(small: Repository) -> None:
    with pytest.raises(UsageError, match="level"):
        recompress(small, level=99)


# -- readers meanwhile


def test_readers_go_on(small: Repository, built: Built, small_batches: None) -> None:
    """Another process's repository and this one's own, without cache, read everything again and again meanwhile."""
    wrong: list[str] = []
    rounds = [0, 0]
    stop = threading.Event()

    def read(place: int, reader: Repository) -> None:
        while not stop.is_set():
            try:
                if read_all(reader) != built.files:
                    wrong.append("other bytes")
            except SprayDryError as error:
                wrong.append(str(error))
            rounds[place] += 1

    with Repository.open(small.url, read_only=True, cache_bytes=0) as other:
        small._frames.limit_bytes = 0
        threads = [threading.Thread(target=read, args=pair) for pair in enumerate((other, small))]
        for thread in threads:
            thread.start()
        while min(rounds) == 0:
            assert all(thread.is_alive() for thread in threads)
            time.sleep(0.01)
        for level in (3, 6, 9, 12):
            recompress(small, level=level)
        stop.set()
        for thread in threads:
            thread.join()
    assert min(rounds) >= 2 and not wrong


# -- stopped anywhere


class Stopped(BaseException):
    """Stands for the process ending here."""


def halves(values: list[T]) -> Iterator[list[T]]:
    half = (len(values) + 1) // 2
    yield from filter(None, (values[:half], values[half:]))


class StoppingStore(MemoryStore):
    """A memory store that ends the process before (or right after) its n-th change."""

    def __init__(self, values: dict[tuple[str, str], bytes], at: int, after: bool) -> None:
        super().__init__(values)
        self.left = at
        self.after = after

    def _change(self, change: Callable[[], object]) -> object:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Stopped
        result = change()
        if self.left == 0:
            raise Stopped
        return result

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        for part in halves(list(values)):  # after an error any of them may be there
            self._change(lambda part=part: super(StoppingStore, self).put_many(namespace, part))  # type: ignore[misc]

    def create(self, namespace: str, name: str, value: bytes) -> bool:
        return bool(self._change(lambda: super(StoppingStore, self).create(namespace, name, value)))

    def delete(self, namespace: str, names: Iterable[str]) -> None:
        for part in halves(list(names)):
            self._change(lambda part=part: super(StoppingStore, self).delete(namespace, part))  # type: ignore[misc]


def values_of(store: Store) -> dict[tuple[str, str], bytes]:
    names = ("frames", "index", "log", "dictionaries", "config")
    return {(space, one.name): store.get(space, one.name) for space in names for one in store.list(space)}


def opened(store: Store) -> Repository:
    """A repository over a store, with a catalog that knows only what the store tells: that of another machine."""
    from spraydry.repository.local import open_catalog
    from spraydry.repository.opening import Opened, read_config

    config = read_config(store, False)
    opened = Opened(store, config, None)
    return Repository(opened, open_catalog(opened), "memory:", 0)


def stops_everywhere(built: Built, work: Callable[[Repository], object]) -> tuple[int, list[str]]:
    """Stop `work` at every change of the store; at how many points it was, and what was wrong after which."""
    with Repository.open(str(built.path), read_only=True) as source:
        values = values_of(source.store)
    wrong = []
    for point in range(1, 10_000):
        left = dict(values)
        store = StoppingStore(left, point, after=bool(point % 2))
        finished = False
        with opened(store) as repository:
            try:
                work(repository)
                finished = True
            except Stopped:
                pass
        with opened(MemoryStore(left)) as repository:
            try:
                assert read_all(repository) == built.files
                recompress(repository)
                gc(repository, grace_ns=0)  # what another machine condemned, it deletes
                assert read_all(repository) == built.files
                assert not set(repository.log.condemned_since(0)) & {
                    bytes.fromhex(f) for f in stored_frames(repository)
                }
            except (AssertionError, SprayDryError) as error:
                wrong.append(f"{point}: {error}"[:200])
        if finished:
            return point, wrong
    raise AssertionError("it never came to an end")


@pytest.mark.slow
def test_stopped_at_every_change_of_a_store(built: Built, small_batches: None) -> None:
    points, wrong = stops_everywhere(built, recompress)
    assert points > 20 and wrong == []


def deletes_first(
    repository: Repository,
    state: object,
    worth: list[groups.Outcome],
    real: Callable[..., Any] = replacing._replace,
    between: Callable[[], object] = lambda: None,
) -> object:
    """A broken step: old frames are deleted before the new ones are stored, so that a stop in between loses them."""
    names = [info.name.hex() for outcome in worth for info in outcome.old]
    repository.store.delete("frames", names)
    between()
    return real(repository, state, worth)


@contextmanager
def broken() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replacing, "_replace", deletes_first)
        yield


def test_stopped_in_a_wrong_order_it_is_noticed(built: Built, small_batches: None) -> None:
    def work(repository: Repository) -> None:
        with broken():
            recompress(repository, budget_bytes=60 << 10)

    _, wrong = stops_everywhere(built, work)
    assert wrong


def stops_at_commits(
    built: Built, place: Path, frames: int, work: Callable[[Repository], object]
) -> tuple[int, list[str]]:
    """Stop `work` before every transaction of a repository in one file; at how many points, and what was wrong."""
    wrong = []
    for point in range(1, 10_000):
        path = built.copy(place)
        with Repository.open(path) as repository, pytest.MonkeyPatch.context() as patch:
            left = [point]
            transaction = repository.catalog.database.transaction

            def counted(left: list[int] = left, transaction: Callable[[], object] = transaction) -> object:
                left[0] -= 1
                if left[0] == 0:
                    raise Stopped
                return transaction()

            patch.setattr(repository.catalog.database, "transaction", counted)
            try:
                work(repository)
                finished = True
            except Stopped:
                finished = False
        try:
            check_whole(path, built)
            with Repository.open(path) as repository:
                recompress(repository)
            check_whole(path, built)
            check_clean(path, frames)
        except (AssertionError, SprayDryError) as error:
            wrong.append(f"{point}: {error}"[:200])
        if finished:
            return point, wrong
    raise AssertionError("it never came to an end")


@pytest.mark.slow
def test_stopped_at_every_commit_of_a_file(built: Built, tmp_path: Path, small_batches: None) -> None:
    """In one SQLite file nothing is ever done twice: what comes out is what an undisturbed run gives."""
    path = built.copy(tmp_path / "whole")
    with Repository.open(path) as repository:
        recompress(repository)
        frames = len(stored_frames(repository))
    points, wrong = stops_at_commits(built, tmp_path / "copy", frames, recompress)
    assert points > 20 and wrong == []

    def work(repository: Repository) -> None:
        with broken():
            recompress(repository, budget_bytes=60 << 10)

    assert stops_at_commits(built, tmp_path / "broken", frames, work)[1]


KILLED = """
import sys, time
from functools import partial
from spraydry.actions.recompress import groups, recompress
from spraydry.repository.repository import Repository
replacing = sys.modules["spraydry.actions.recompress.recompress"]
replacing._BATCH_BYTES, groups.FRAME_TARGET_BYTES = int(sys.argv[2]), int(sys.argv[3])
def stop_here():
    print("deleted", flush=True)
    time.sleep(600)
if sys.argv[4] == "broken":
    from tests.test_recompress import deletes_first
    replacing._replace = partial(deletes_first, between=stop_here)
with Repository.open(sys.argv[1]) as repository:
    database = repository.catalog.database
    transaction = database.transaction
    def told():
        print("transaction", flush=True)
        return transaction()
    database.transaction = told
    recompress(repository)
print("done", flush=True)
"""


def killed(path: str, at: int | None, after_s: float = 0.0, variant: str = "sound") -> list[str]:
    """Recompress in a process of its own, and kill that so long after it told the so-and-so-manieth thing; all that it
    told, which are the transactions it began, and that it is done."""
    command = [sys.executable, "-c", KILLED, path, str(BATCH_BYTES), str(TARGET_BYTES), variant]
    with subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = []
        for line in process.stdout:
            told.append(line.strip())
            if len(told) == at or told[-1] == "deleted":
                time.sleep(after_s)
                process.kill()
    return told


@pytest.mark.slow
def test_killed_at_random_moments(built: Built, tmp_path: Path, small_batches: None) -> None:
    path = built.copy(tmp_path / "whole")
    began = time.monotonic()
    whole = killed(path, None)
    step_s = (time.monotonic() - began) / len(whole)
    assert whole[-1] == "done" and len(whole) > 20
    with Repository.open(path) as repository:
        frames = len(stored_frames(repository))
    moments = random.Random(3)
    unfinished = 0
    for number in range(20):
        path = built.copy(tmp_path / f"copy{number}")
        told = killed(path, moments.randrange(1, len(whole)), moments.random() * step_s)
        unfinished += told[-1] != "done"
        check_whole(path, built)
        with Repository.open(path) as repository:
            recompress(repository)
        check_whole(path, built)
        check_clean(path, frames)
    assert unfinished > 5
    path = built.copy(tmp_path / "broken")
    assert killed(path, None, variant="broken")[-1] == "deleted"
    with pytest.raises((AssertionError, SprayDryError)):  # the broken variant is noticed
        check_whole(path, built)


def test_condemned_frames_are_removed_only_when_their_chunks_live(small: Repository, built: Built) -> None:
    """A condemned frame whose chunks are nowhere else stays for who condemned it."""
    _, victim = next(small.catalog.frames())
    condemn(small, [victim.name], "test")
    assert isinstance(small.log.records[-1], CondemnRecord)
    assert recompress(small).recovered == 0
    assert size_of(small.store, "frames", victim.name.hex()) == victim.stored
    assert read_all(small) == built.files


def test_names_of_frames_are_new(small: Repository) -> None:
    before = set(stored_frames(small))
    recompress(small)
    for name in set(stored_frames(small)) - before:
        assert digest(small.store.get("frames", name)).hex() == name
