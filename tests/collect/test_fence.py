"""The fence: whatever is condemned or deleted under a writer or an undelete, no version ever lacks a chunk."""

from __future__ import annotations

import io
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from spraydry.actions.closure import chunks_of
from spraydry.actions.collect import gc
from spraydry.actions.ingest import ingest
from spraydry.actions.put import put_stream
from spraydry.actions.recompress import recompress
from spraydry.actions.remove import bring_back, remove
from spraydry.actions.verify import verify
from spraydry.errors import CollectedMeanwhile, VersionNotFound
from spraydry.repository import condemned
from spraydry.repository.repository import Repository
from spraydry.repository.runs import replace_runs
from spraydry.stores.memory import MemoryStore
from tests.collect.test_gc import noise, small_frames, stored, whole
from tests.far_store import Far, opened
from tests.repositories import machine
from tests.small_versions import read_all
from tests.versions import make_version

__all__ = ["small_frames"]

Machines = Callable[[str], Repository]


@pytest.fixture(params=["sqlite", "dir", "far"])
def machines(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machines]:
    """Opens one repository from several machines, each with a catalog of its own where the store has none."""
    far: MemoryStore = Far(4)
    with ExitStack() as stack:

        def open_on(name: str) -> Repository:
            machine(tmp_path / name, monkeypatch)
            if request.param == "far":
                return stack.enter_context(opened(far))
            url = str(tmp_path / "r.sqlite") if request.param == "sqlite" else f"dir:{tmp_path}/r"
            return stack.enter_context(Repository.open(url, create=True))

        yield open_on


def folder(path: Path, files: dict[bytes, bytes]) -> str:
    path.mkdir(exist_ok=True)
    for old in path.iterdir():
        old.unlink()
    for name, content in files.items():
        (path / name.decode()).write_bytes(content)
    return str(path)


_COMMITTING = ("append_whole", "condemn", "collect", "_revoke")


@contextmanager
def before_the_commit(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], number: int = 0
) -> Iterator[None]:
    """`act` is done once, when all is stored, and before the record (of several: that number) is appended."""
    committing, seen = repository.committing, []

    def late() -> object:
        if sys._getframe(1).f_code.co_name in _COMMITTING:
            seen.append(number)
            if len(seen) == number + 1:
                act()
        return committing()

    with monkeypatch.context() as patched:
        patched.setattr(repository, "committing", late)
        yield
    assert len(seen) > number


def complete(repository: Repository) -> None:
    """Every version can be read from what is not condemned."""
    for record in repository.log.living().values():
        names = list(chunks_of(repository, record.entry, record.links))
        assert not set(names) - repository.catalog.chunks.known(names) - repository.vouch(names)
    found = verify(repository)
    assert found.sound, found


@pytest.mark.parametrize("grace_ns", [0, 10**15])
def test_what_is_condemned_under_an_ingest_is_stored_again(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grace_ns: int
) -> None:
    writer, collector = machines("a"), machines("b")
    files = noise(1, 24)
    source = folder(tmp_path / "source", files)
    ingest(writer, [source], root="r", threads=1)
    ingest(writer, [folder(tmp_path / "other", noise(2, 3))], root="r", threads=1)
    collector.refresh()
    remove(collector, ["r@v1"])
    writer.refresh()
    # All of it is stored, and named by nothing.
    deleted: list[int] = []

    def act() -> None:
        deleted.append(gc(collector, grace_ns=grace_ns).condemned_frames)

    with before_the_commit(writer, monkeypatch, act):
        result = ingest(writer, [folder(tmp_path / "again", files)], root="r", threads=1)
    assert deleted[0] >= 1 and result.version is not None
    whole(writer, "r", files)
    for repository in (writer, collector, machines("c")):
        repository.refresh()
        whole(repository, "r@v3", files)
        complete(repository)
    gc(collector, grace_ns=0)
    complete(collector)
    writer.refresh()
    complete(writer)


@pytest.mark.parametrize("grace_ns", [0, 10**15])
def test_what_a_writer_stored_itself_may_be_condemned_as_well(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grace_ns: int
) -> None:
    writer, collector = machines("a"), machines("b")
    make_version(writer, "other", noise(9, 3))
    files = noise(1, 24)

    def act() -> None:
        collector.refresh()
        assert gc(collector, grace_ns=grace_ns).condemned_frames >= 1

    with before_the_commit(writer, monkeypatch, act):
        ingest(writer, [folder(tmp_path / "source", files)], root="r", threads=1)
    whole(writer, "r", files)
    collector.refresh()
    complete(collector)


def test_a_stream_that_cannot_be_read_again_says_so(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, collector = machines("a"), machines("b")
    make_version(writer, "r", noise(1, 3))

    def act() -> None:
        collector.refresh()
        gc(collector, grace_ns=0)

    content = random.Random(1).randbytes(50_000)
    with before_the_commit(writer, monkeypatch, act), pytest.raises(CollectedMeanwhile, match="run it again"):
        put_stream(writer, "r", "file", io.BytesIO(content))
    assert [version.name for version in writer.log.versions("r")] == ["v1"]
    put_stream(writer, "r", "file", io.BytesIO(content))
    assert read_all(writer, "r")["file"] == content
    complete(writer)


def test_aborted_writers_do_not_make_others_count_on_what_was_condemned(machines: Machines, tmp_path: Path) -> None:
    """An ingest that ends without a version leaves frames in its catalog; another machine collects them; then the same
    content comes again."""
    writer, collector = machines("a"), machines("b")
    make_version(writer, "other", noise(9, 3))
    files = noise(1, 24)
    from spraydry.format.digest import digest
    from spraydry.repository.writer import Writer

    with Writer(writer) as stores:
        for content in files.values():
            stores.add(digest(content), content, "other")
        stores.finish()
    collector.refresh()
    assert gc(collector, grace_ns=0).deleted_frames >= 1
    source = folder(tmp_path / "source", files)
    writer.refresh()
    ingest(writer, [source], root="r", threads=1)
    whole(writer, "r", files)
    complete(writer)


def test_a_version_that_is_committed_while_frames_are_condemned_keeps_them(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, collector = machines("a"), machines("b")
    files = noise(1, 24)
    make_version(writer, "r", files)
    make_version(writer, "r", noise(2, 3))
    remove(writer, ["r@v1"])
    collector.refresh()

    def act() -> None:
        writer.refresh()
        ingest(writer, [folder(tmp_path / "source", files)], root="s", threads=1)

    with before_the_commit(collector, monkeypatch, act):
        gc(collector, grace_ns=0)
    for repository in (writer, collector, machines("c")):
        repository.refresh()
        whole(repository, "s", files)
        complete(repository)


def test_two_collections_never_take_both_copies(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each machine trusts what it stored itself: of the two frames that hold a chunk each would keep another one."""
    one, other = machines("a"), machines("b")
    files = noise(1, 24)
    make_version(one, "r", files)
    other.catalog.clear()  # it has not heard of them, and stores them a second time
    monkeypatch.setattr(other, "vouch", lambda names: set())
    make_version(other, "s", files)
    one.refresh()
    other.refresh()
    first = stored(one)

    def act() -> None:
        gc(other, grace_ns=0)

    with before_the_commit(one, monkeypatch, act):
        one.catalog.pardon([])
        gc(one, grace_ns=0)
    assert len(stored(one)) <= len(first)
    for repository in (one, other, machines("c")):
        repository.refresh()
        whole(repository, "r", files)
        whole(repository, "s", files)
        complete(repository)


def test_undelete_within_the_grace_time_and_after(machines: Machines) -> None:
    one, other = machines("a"), machines("b")
    files = noise(1, 24)
    make_version(one, "r", files)
    make_version(one, "r", noise(2, 3))
    remove(one, ["r@v1"])
    other.refresh()
    assert gc(other).condemned_frames >= 1
    before = stored(other)
    one.refresh()
    bring_back(one, ["r@v1"])
    assert stored(one) == before, "nothing was stored anew"
    for repository in (one, other, machines("c")):
        repository.refresh()
        whole(repository, "r@v1", files)
        complete(repository)
        assert gc(repository, grace_ns=0).dropped_bytes == 0
        complete(repository)
    remove(one, ["r@v1"])
    assert gc(one, grace_ns=0).deleted_frames >= 1
    other.refresh()
    for dry_run in (True, False):
        with pytest.raises(VersionNotFound, match="cannot come back"):
            bring_back(other, ["r@v1"], dry_run=dry_run)
    whole(other, "r@v2", noise(2, 3))


def test_deletion_and_undelete_cannot_both_happen(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = machines("a"), machines("b")
    files = noise(1, 24)
    make_version(one, "r", files)
    make_version(one, "r", noise(2, 3))
    remove(one, ["r@v1"])
    gc(one)
    other.refresh()
    with before_the_commit(one, monkeypatch, lambda: bring_back(other, ["r@v1"])):
        assert gc(one, grace_ns=0).deleted_frames == 0, "it was pardoned before the slot was collected"
    whole(one, "r@v1", files)
    remove(one, ["r@v1"])
    gc(one)
    other.refresh()
    with (
        before_the_commit(other, monkeypatch, lambda: gc(one, grace_ns=0)),
        pytest.raises(VersionNotFound, match="cannot come back"),
    ):
        bring_back(other, ["r@v1"])
    complete(other)


def test_condemned_again_while_it_comes_back(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between taking back the sentence and taking back the removal, a collection sees a version that is removed."""
    one, other = machines("a"), machines("b")
    files = noise(1, 24)
    make_version(one, "r", files)
    make_version(one, "r", noise(2, 3))
    remove(one, ["r@v1"])
    gc(one)
    other.refresh()

    def act() -> None:
        one.refresh()
        assert gc(one).condemned_frames >= 1

    with before_the_commit(other, monkeypatch, act, number=1):
        bring_back(other, ["r@v1"])
    whole(other, "r@v1", files)
    complete(other)
    one.refresh()
    gc(one, grace_ns=0)
    whole(one, "r@v1", files)
    complete(one)


def test_recompress_and_collection(machines: Machines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one, other = machines("a"), machines("b")
    text = {f"{n:03}.txt".encode(): (f"line {n} " * 200).encode() for n in range(40)}
    ingest(one, [folder(tmp_path / "source", text)], root="r", threads=1, level=1)
    ingest(one, [folder(tmp_path / "source", {k: v for k, v in text.items() if k > b"020"})], root="r", threads=1)
    remove(one, ["r@v1"])
    other.refresh()

    def act() -> None:
        one.refresh()
        recompress(one, level=19)

    with before_the_commit(other, monkeypatch, act):
        gc(other, grace_ns=0, below=1)
    for repository in (one, other):
        repository.refresh()
        assert len(read_all(repository, "r")) == len(text) - 20
        complete(repository)


def test_ingests_and_collections_at_the_same_time(machines: Machines, tmp_path: Path) -> None:
    writer, collector = machines("a"), machines("b")
    rng = random.Random(4)
    ended, failed = threading.Event(), []

    def collecting() -> None:
        try:
            while not ended.is_set():
                collector.refresh()
                gc(collector, grace_ns=0, below=0.7)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=collecting)
    thread.start()
    try:
        for number in range(8):
            files = noise(rng.randrange(3), 12) | noise(10 + number % 2, 6)
            result = ingest(writer, [folder(tmp_path / "source", files)], root="r", threads=1)
            assert result.version is not None
            whole(writer, str(result.version), files)
            if result.new and number:
                remove(writer, [f"r@{writer.log.versions('r')[0].name}"])
    finally:
        ended.set()
        thread.join()
    assert not failed, failed
    for repository in (writer, collector):
        repository.refresh()
        whole(repository, "r", files)
        complete(repository)


def test_runs_that_the_catalog_has_not_taken_in_are_left_to_another_time(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that another machine merged names what is gone, and what is new: written anew it would count as taken."""
    one, other = machines("a"), machines("b")
    make_version(one, "r", noise(1, 24))
    make_version(one, "r", noise(2, 3))
    remove(one, ["r@v1"])
    other.refresh()
    clean = condemned.clean_runs

    def late(repository: Repository) -> None:
        make_version(one, "s", noise(3, 8))
        replace_runs(one, [stored.name for stored in one.store.list("index")], frozenset())
        clean(repository)

    monkeypatch.setattr(sys.modules["spraydry.actions.collect.gc"], "clean_runs", late)
    assert gc(other, grace_ns=0).deleted_frames
    for repository in (other, one, machines("c")):
        repository.refresh()
        whole(repository, "s", noise(3, 8))
        complete(repository)
