"""The dir store passes the conformance suite, and stands what can happen to a folder."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spraydry.errors import (
    CorruptData,
    FormatTooNew,
    NotARepository,
    SprayDryError,
    StoreError,
    StoreFull,
    StoreNotFound,
    StoreReadOnly,
    StoreUnavailable,
    UsageError,
    ValueNotFound,
)
from spraydry.format.digest import digest
from spraydry.stores import dir as dirs
from spraydry.stores.base import NAMESPACES, Store, Stored, open_store
from spraydry.stores.shared import folder as folders
from spraydry.stores.shared.layout import FIRST
from spraydry.stores.shared.listing import decode
from tests.remote_store import WRITES_ONCE, commit_together
from tests.store_contract import Place, StoreContract

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: needs root to mount file systems")


class TestDir(StoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Place(f"dir:{tmp_path}/store")


class TestDirWithoutLinks(StoreContract):
    """As on FAT, whose files have one name each."""

    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
        def no_link(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", no_link)
        return Place(f"dir:{tmp_path}/store")


class TestDirOfSmallPages(StoreContract):
    """Listed, written and deleted in several steps; nested as deeply as can be."""

    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
        monkeypatch.setattr(folders, "_LIST_TOGETHER", 7)
        monkeypatch.setattr(dirs, "_PUT_TOGETHER", 20)
        monkeypatch.setattr(dirs, "_DELETE_TOGETHER", 20)
        monkeypatch.setattr(
            dirs.layout, "FIRST", FIRST + "".join(f"{name} 3\n" for name in NAMESPACES if name != "frames")
        )
        return Place(f"dir:{tmp_path}/store")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = open_store(f"dir:{path}", create=True)
    yield opened
    opened.close()


def names_of(store: Store, namespace: str = "frames") -> list[str]:
    return [stored.name for stored in store.list(namespace)]


def files_in(path: Path) -> list[str]:
    return sorted(str(found.relative_to(path)) for found in path.rglob("*") if found.is_file())


NAME = "0123456789abcdef" * 4


# -- the folder


def test_where_values_lie(store: Store, path: Path) -> None:
    store.put("frames", NAME, b"frame")
    store.put("frames", "a", b"short")
    store.put("log", "000000000001", b"slot")
    store.soft_delete("frames", ["a"])
    store.flush()
    assert files_in(path) == [
        f"frames/01=/{NAME}",
        "frames~/a",
        "layout",
        "listing",
        "lock",
        "log/000000000001",
    ]
    assert (path / "layout").read_text() == FIRST
    assert {found.stat().st_mode & 0o777 for found in path.rglob("*") if found.is_file()} == {0o600}
    assert {found.stat().st_mode & 0o777 for found in (path, *path.rglob("*")) if found.is_dir()} == {0o700}
    assert store.location() == str(path)


def test_permissions_follow_those_of_the_layout(store: Store, path: Path) -> None:
    """Whoever lets others read a store, for a web server, need not do so again after each commit."""
    store.put("frames", "before", b"x")
    subprocess.run(["chmod", "-R", "a+rX", str(path)], check=True)
    before = os.umask(0o077)
    try:
        store.put("frames", NAME, b"x")
        store.create("log", "1", b"x")
        store.flush()
    finally:
        os.umask(before)
    modes = {str(found.relative_to(path)): found.stat().st_mode & 0o777 for found in path.rglob("*")}
    assert {modes[name] for name in (f"frames/01=/{NAME}", "log/1", "listing")} == {0o644}
    assert {modes[name] for name in ("frames", "frames/01=", "log")} == {0o755}


def test_folders_are_made(tmp_path: Path) -> None:
    open_store(f"dir:{tmp_path}/a/b", create=True).close()
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    open_store(f"dir://{tmp_path}/c", create=True).close()
    assert (tmp_path / "c" / "layout").exists()
    with pytest.raises(UsageError):
        open_store("dir:", create=True)


def test_folders_that_are_no_store(tmp_path: Path) -> None:
    full, empty, file = tmp_path / "full", tmp_path / "empty", tmp_path / "file"
    full.mkdir()
    (full / "mine").write_text("x")
    empty.mkdir()
    file.write_text("x")
    for create in (False, True):
        for place in (full, file):
            with pytest.raises(NotARepository):
                open_store(f"dir:{place}", create=create)
    assert os.listdir(full) == ["mine"]
    with pytest.raises(StoreNotFound, match="mounted"):
        open_store(f"dir:{empty}")
    for foreign in ("lost+found", ".DS_Store", ".layout-0123"):  # the last: from a crash while it was made
        (empty / foreign).mkdir()
    with pytest.raises(StoreNotFound):
        open_store(f"dir:{empty}")
    open_store(f"dir:{empty}", create=True).close()
    open_store(f"dir:{empty}").close()
    with pytest.raises(SprayDryError):
        open_store("dir:/proc/self/task", create=True)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", NotARepository),
        ("hello\n", NotARepository),
        ("spraydry dir 2\nframes 1\n", FormatTooNew),
        ("spraydry dir 1\nframes 4\n", StoreError),
        ("spraydry dir 1\nframes\n", StoreError),
        ("spraydry dir 1\nframes 1 2\n", StoreError),
        ("spraydry dir 1\nmine 1\n", StoreError),
        ("spraydry dir 1\nframes -1\n", StoreError),
        ("spraydry dir 1\nframes \u0661\n", StoreError),
    ],
)
def test_layouts_that_say_nothing(store: Store, path: Path, text: str, error: type[SprayDryError]) -> None:
    store.put("frames", NAME, b"x")
    (path / "layout").write_text(text)
    with pytest.raises(error) as caught:
        open_store(f"dir:{path}")
    assert type(caught.value) is error and "\n" not in str(caught.value)
    assert store.get("frames", NAME) == b"x"  # who knew the one before goes on with it
    store.put("frames", "b" * 64, b"y")
    assert (path / "frames" / "bb=" / ("b" * 64)).exists()


def test_what_is_not_ours_is_passed_over(store: Store, path: Path, tmp_path: Path) -> None:
    store.put_many("frames", [(NAME, b"x"), ("f", b"y")])
    nest = path / "frames" / "01="
    for folder in (path / "frames", nest):
        (folder / ".DS_Store").write_text("x")
        (folder / "UPPER").write_text("x")
        (folder / "b\udcff").write_text("x")
        (folder / "lost+found").mkdir()
        (folder / ("e" * 64)).mkdir()
        (folder / "link").symlink_to(tmp_path / "store" / "layout")
        os.mkfifo(folder / "fifo")
    (nest / ("a" * 64)).write_text("in the wrong nest")
    deep = nest / "23=" / "45=" / "67="
    deep.mkdir(parents=True)
    (deep / NAME).write_text("too deep")
    (path / "frames" / "zz=").symlink_to(nest)
    assert names_of(store) == [NAME, "f"]
    for name in ("link", "fifo", "a" * 64, "e" * 64):
        assert store.info("frames", name) is None
        with pytest.raises(ValueNotFound):
            store.get("frames", name)
    assert store.stat().values == 2
    store.delete("frames", [NAME])
    assert names_of(store) == ["f"]


def test_no_link_leads_out(store: Store, path: Path, tmp_path: Path) -> None:
    store.put("frames", NAME, b"x")
    outside = tmp_path / "outside"
    (outside / "01=").mkdir(parents=True)
    (outside / "01=" / NAME).write_text("other")
    (outside / "a").write_text("other")
    for link, to in ((path / "frames" / "01=", outside / "01="), (path / "frames", outside), (path / "tmp", outside)):
        kept = link.with_name("kept")
        link.rename(kept)
        link.symlink_to(to)
        asks: list[Callable[[], object]] = [
            lambda: store.get("frames", NAME),
            lambda: store.delete("frames", [NAME, "a"]),
            lambda: store.put("frames", NAME, b"mine"),
            lambda: store.create("frames", "0" + "2" * 63, b"mine") and store.create("frames", NAME, b""),
            lambda: store.move("frames", NAME, "frames", "b"),
        ]
        if link.name != "tmp":
            for ask in asks:
                with pytest.raises(StoreError):
                    ask()
        else:
            with pytest.raises(StoreError):
                store.put("frames", NAME, b"mine")
        assert {found.read_text() for found in outside.rglob("*") if found.is_file()} == {"other"}
        assert len(files_in(outside)) == 2
        link.unlink()
        kept.rename(link)
        assert store.get("frames", NAME) == b"x"
    (path / "log").symlink_to(outside)
    with pytest.raises(StoreError, match="links are not followed"):
        store.get("log", "a")


def test_values_too_long_for_one(store: Store, path: Path) -> None:
    store.put("frames", "a", b"x")
    os.truncate(path / "frames" / "a", 1 << 40)
    with pytest.raises(CorruptData):
        store.get("frames", "a")
    assert store.get("frames", "a", 1 << 39, 10) == bytes(10)


def test_a_folder_that_goes(store: Store, path: Path) -> None:
    """As when its disk is unmounted: nothing is made anew where it was."""
    store.put("frames", NAME, b"x")
    path.rename(path.with_name("elsewhere"))
    for mount_point in (False, True):
        if mount_point:
            path.mkdir()
        asks: list[Callable[[], object]] = [
            lambda: store.get("frames", NAME),
            lambda: store.put("frames", "b", b""),
            lambda: store.create("log", "1", b""),
            lambda: store.delete("frames", [NAME]),
            lambda: names_of(store),
            store.stat,
            store.flush,
        ]
        for ask in asks:
            with pytest.raises(StoreUnavailable, match="mounted"):
                ask()
    assert os.listdir(path) == []
    path.rmdir()
    path.with_name("elsewhere").rename(path)
    assert store.get("frames", NAME) == b"x"


def test_destroying_leaves_what_is_not_ours(store: Store, path: Path) -> None:
    store.put("frames", NAME, b"x")
    store.flush()
    (path / "lost+found").mkdir()
    store.destroy()
    assert os.listdir(path) == ["lost+found"]
    again = open_store(f"dir:{path}", create=True)
    assert again.stat().values == 0
    again.close()


# -- durability


def test_bytes_are_durable_before_names_and_names_before_the_return(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renamed without fsync, 400 of 400 chunks were lost at a power cut."""
    steps: list[tuple[str, str]] = []
    lock = threading.Lock()

    def noted(name: str, file_of: Callable[..., int | str]) -> None:
        real = getattr(os, name)

        def call(*arguments: object, **more: object) -> object:
            target = file_of(*arguments, **more)
            what = target if isinstance(target, str) else os.readlink(f"/proc/self/fd/{target}")
            found = real(*arguments, **more)
            with lock:
                steps.append((name, os.path.relpath(what, path)))
            return found

        monkeypatch.setattr(os, name, call)

    def destination(_: str, to: str, *, dst_dir_fd: int, **__: object) -> str:
        return os.readlink(f"/proc/self/fd/{dst_dir_fd}") + "/" + to

    noted("fsync", lambda file: file)
    for name in ("replace", "rename", "link"):
        noted(name, destination)
    frames = {f"{number:02x}" * 32: b"x" * 100 for number in range(20)}
    store.put_many("frames", frames.items())
    named = [place for place, (what, _) in enumerate(steps) if what == "replace"]
    written = [place for place, (what, file) in enumerate(steps) if what == "fsync" and file.startswith("tmp/")]
    assert len(named) == len(written) == 20 and max(written) < min(named)
    behind = {file for what, file in steps[max(named) :] if what == "fsync"}
    assert behind == {".", "frames", *(f"frames/{name[:2]}=" for name in frames)}
    for ask, want in (
        (lambda: store.create("log", "1", b"x"), [("link", "log/1"), ("fsync", "log")]),
        (lambda: store.move("log", "1", "index", "1"), [("rename", "index/1"), ("fsync", "index"), ("fsync", "log")]),
        (lambda: store.delete("index", ["1"]), [("fsync", "index")]),
        (store.flush, [("replace", "listing"), ("fsync", ".")]),
    ):
        steps.clear()
        ask()
        at = [steps.index(step) for step in want]
        assert at == sorted(at), steps


def test_a_file_that_cannot_be_made_durable_gets_no_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync
    for number, error in ((errno.EIO, StoreUnavailable), (errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull)):

        def fails(file: int, number: int = number) -> None:
            if "/tmp/" in os.readlink(f"/proc/self/fd/{file}").removeprefix("/tmp"):
                raise OSError(number, os.strerror(number))
            real(file)

        monkeypatch.setattr(os, "fsync", fails)
        for ask in (lambda: store.put("frames", NAME, b"x"), lambda: store.create("log", "1", b"x")):
            with pytest.raises(error):
                ask()
        monkeypatch.setattr(os, "fsync", real)
        assert names_of(store) == names_of(store, "log") == []
        assert os.listdir(Path(store.location() or "") / "tmp") == []


def test_old_temporary_files_go(store: Store, path: Path) -> None:
    store.put("frames", NAME, b"x")
    old, new = path / "tmp" / "1-old", path / "tmp" / "2-new"
    for left in (old, new):
        left.write_bytes(b"half")
    os.utime(old, (time.time() - 90_000,) * 2)
    assert store.stat().values == 1
    store.flush()
    assert not old.exists() and new.exists()


def test_flush_writes_the_listing(store: Store, path: Path) -> None:
    store.put("log", "000000000001", b"xyz")
    store.put("frames", NAME, b"x")
    assert not (path / "listing").exists()
    store.flush()
    found = decode((path / "listing").read_bytes())
    assert found.values == {"log": {"000000000001": 3}, "index": {}, "dictionaries": {}, "config": {}, "hoards": {}}
    assert (found.depths_of("frames"), found.depths_of("log")) == ((1, 0, 2, 3), (0, 1, 2, 3))
    assert os.listdir(path / "tmp") == []


# A file system without locks.
NO_LOCKS = """
import errno, fcntl
def flock(*_):
    raise OSError(errno.ENOLCK, "no locks available")
fcntl.flock = flock
"""


@pytest.mark.parametrize("locks", ["", NO_LOCKS], ids=["locks", "no locks"])
def test_machines_that_commit_at_the_same_time(store: Store, path: Path, locks: str) -> None:
    commit_together(f"dir:{path}", locks)
    assert len(decode((path / "listing").read_bytes()).values["log"]) == 24


def test_the_control_of_machines_that_commit_at_the_same_time(store: Store, path: Path) -> None:
    for _ in range(20):
        store.delete("log", [stored.name for stored in store.list("log")])
        commit_together(f"dir:{path}", NO_LOCKS + WRITES_ONCE)
        if len(decode((path / "listing").read_bytes()).values["log"]) < 24:
            return
    pytest.fail("an older listing never replaced a newer one")


# -- nesting


def set_layout(path: Path, **depths: int) -> None:
    """As an editor does: the whole file anew."""
    text = "spraydry dir 1\n" + "".join(f"{namespace} {depth}  # a line\n" for namespace, depth in depths.items())
    (path / "layout.new").write_text(text)
    (path / "layout.new").rename(path / "layout")


def test_values_at_any_depth(store: Store, path: Path) -> None:
    rng = random.Random(1)
    model: dict[str, bytes] = {}
    names = [rng.randbytes(32).hex() for _ in range(40)] + ["0", "01", "012", "0123", "01_", "a.b"]
    for step in range(400):
        if step % 20 == 0:
            set_layout(path, frames=rng.randrange(4))
        name, to = rng.choice(names), rng.choice(names)
        match rng.randrange(5):
            case 0 | 1:
                model[name] = rng.randbytes(rng.randrange(20))
                store.put("frames", name, model[name])
            case 2:
                assert store.create("frames", name, b"c") == (name not in model)
                model.setdefault(name, b"c")
            case 3:
                store.delete("frames", [name])
                model.pop(name, None)
            case 4 if name in model:
                store.move("frames", name, "frames", to)
                model[to] = model.pop(name)
        assert list(store.list("frames")) == sorted(Stored(name, len(value)) for name, value in model.items())
        assert {name: store.get("frames", name) for name in model} == model
        after = rng.choice(names)
        assert [s.name for s in store.list("frames", after)] == sorted(name for name in model if name > after)
    assert len([file for file in files_in(path) if file.startswith("frames/")]) == len(model)
    store.delete("frames", model)
    assert os.listdir(path / "frames") == []  # no empty folders are left


def test_a_value_at_two_depths(store: Store, path: Path) -> None:
    """As a crash leaves it that came between writing it anew and removing the old one."""
    for ask in ("put", "delete", "move", "list", "create"):
        set_layout(path, frames=0)
        store.put("frames", NAME, b"older")
        set_layout(path, frames=2)
        nest = path / "frames" / "01=" / "23="
        nest.mkdir(parents=True)
        (nest / NAME).write_bytes(b"new")
        assert store.get("frames", NAME) == b"new" and store.info("frames", NAME) == Stored(NAME, 3)
        if ask == "put":
            store.put("frames", NAME, b"newest")
            assert store.get("frames", NAME) == b"newest"
        elif ask == "move":
            store.move("frames", NAME, "frames", "b")
            assert names_of(store) == ["b"] and store.get("frames", "b") == b"new"
            store.delete("frames", ["b"])
        elif ask == "list":
            assert list(store.list("frames")) == [Stored(NAME, 3)]
        elif ask == "create":
            assert not store.create("frames", NAME, b"x")
        store.delete("frames", [NAME])
        assert names_of(store) == [] and files_in(path / "frames") == []


WORKER = """
import sys
from spraydry.stores.base import open_store
store = open_store(sys.argv[1])
for line in sys.stdin:
    words = line.split()
    if words[0] == "put": store.put("frames", words[1], words[2].encode()); print("ok", flush=True)
    elif words[0] == "create": print(store.create("frames", words[1], words[2].encode()), flush=True)
    elif words[0] == "delete": store.delete("frames", [words[1]]); print("ok", flush=True)
    elif words[0] == "get": print(store.get("frames", words[1]).decode(), flush=True)
    elif words[0] == "list": print(" ".join(s.name for s in store.list("frames")), flush=True)
"""


def test_depths_changed_under_a_second_process(store: Store, path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, f"dir:{path}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None

    def other(*words: str) -> str:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(" ".join(words) + "\n")
        process.stdin.flush()
        return process.stdout.readline().rstrip("\n")

    try:
        assert other("put", NAME, "first") == "ok"
        assert (path / "frames" / "01=" / NAME).exists()
        for depth, place in ((0, ""), (3, "01=/23=/45="), (2, "01=/23="), (1, "01=")):
            set_layout(path, frames=depth)
            assert other("get", NAME) == store.get("frames", NAME).decode()  # from where it still lies
            assert other("create", NAME, "x") == "False"
            assert other("list") == NAME
            assert other("put", NAME, f"at{depth}") == "ok"  # and so it comes to where it belongs
            assert store.get("frames", NAME) == f"at{depth}".encode()
            assert files_in(path / "frames") == [str(Path(place) / NAME)]
        assert other("delete", NAME) == "ok"
        assert names_of(store) == []
    finally:
        process.communicate()


# A slow disk, between looking whether a name is taken and taking it.
RACER = """
import sys, time
from spraydry.stores import dir as dirs
from spraydry.stores.base import open_store
link = dirs._link
def slowly(*arguments):
    time.sleep(0.003)
    return link(*arguments)
dirs._link = slowly
store = open_store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(*(slot for slot in range(150) if store.create("log", f"{slot:012d}", sys.argv[2].encode() * 1000)))
"""


def test_of_racing_processes_one_wins_while_the_layout_changes(store: Store, path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, f"dir:{path}", str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    over = threading.Event()

    def change() -> None:
        rng = random.Random(1)
        while not over.wait(0.002):
            set_layout(path, frames=1, log=rng.randrange(4))

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        won = [[int(slot) for slot in process.communicate(timeout=600)[0].split()] for process in processes]
    finally:
        over.set()
        changing.join()
    assert sorted(slot for slots in won for slot in slots) == list(range(150))
    for number, slots in enumerate(won):
        for slot in slots:
            assert store.get("log", f"{slot:012d}") == b"%d" % number * 1000
    assert len(files_in(path / "log")) == 150


def test_listing_holds_a_part_only(store: Store, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order over folders of different depths, a few names of each at a time."""
    monkeypatch.setattr(folders, "_LIST_TOGETHER", 100)
    rng = random.Random(3)
    names = sorted(rng.randbytes(32).hex() for _ in range(5000))
    for name in names:  # directly: it is the listing that is to be tested
        place = path.joinpath("frames", *(f"{name[2 * level : 2 * level + 2]}=" for level in range(rng.randrange(3))))
        place.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    found = store.list("frames")
    assert [next(found).name for _ in range(10)] == names[:10]
    assert [stored.name for stored in found] == names[10:]
    assert names_of(store) == names
    assert [stored.name for stored in store.list("frames", names[2345])] == names[2346:]


# -- killed writers

WRITER = """
import random, sys
from spraydry.format.digest import digest
from spraydry.stores.base import open_store
store = open_store(sys.argv[1])
rng = random.Random(int(sys.argv[2]))
slot = int(sys.argv[3])
def said(*words): sys.stdout.write(" ".join(words) + "\\n"); sys.stdout.flush()
while True:
    values = [rng.randbytes(rng.randrange(1, 60_000)) for _ in range(rng.randrange(1, 12))]
    frames = [(digest(value).hex(), value) for value in values]
    store.put_many("frames", frames)
    said("frames", *(name for name, _ in frames))
    value = rng.randbytes(3000)
    if store.create("log", f"{slot:012d}", value + digest(value)): said("log", f"{slot:012d}")
    slot += 1
    gone = [name for name, _ in frames[:2]]
    said("going", *gone)
    if rng.random() < 0.5: store.delete("frames", gone)
    else: store.soft_delete("frames", gone)
    said("gone", *gone)
    value = rng.randbytes(rng.randrange(30_000))
    store.put("config", "config", value + digest(value))
    store.flush()
    said("flushed")
"""


@pytest.mark.slow
def test_a_writer_killed_again_and_again(store: Store, path: Path, tmp_path: Path) -> None:
    """What it said is there is there, whole, and whatever else is there is whole as well."""
    rng = random.Random(4)
    there: set[str] = set()
    maybe: set[str] = set()
    slots: set[str] = set()
    rounds_with_work = 0
    for number in range(30):
        set_layout(path, frames=rng.choice((0, 1, 1, 2, 3)), log=rng.randrange(2))
        said = tmp_path / "said"
        with said.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", WRITER, f"dir:{path}", str(number), str(len(slots) + 1)], stdout=output
            )
            try:
                deadline_s, wanted = time.monotonic() + 120, rng.randrange(1, 9)
                while said.read_bytes().count(b"\n") < wanted:
                    assert process.poll() is None and time.monotonic() < deadline_s
                    time.sleep(0.001)
                time.sleep(rng.random() * 0.02)  # the moment to be killed at
            finally:
                process.kill()
                process.wait()
        lines = [line.split() for line in said.read_text().split("\n")[:-1]]
        rounds_with_work += len(lines) > 1
        for what, *names in lines:
            if what == "frames":
                there.update(names)
            elif what == "log":
                slots.update(names)
            elif what == "going":
                there.difference_update(names)
                maybe.update(names)
        again = open_store(f"dir:{path}")
        found = {stored.name: again.get("frames", stored.name) for stored in again.list("frames")}
        assert there <= found.keys()
        assert all(digest(value).hex() == name for name, value in found.items())
        listed = {stored.name: again.get("log", stored.name) for stored in again.list("log")}
        assert slots <= listed.keys()
        slots.update(listed)
        slots_and_config = [*listed.values(), *(again.get("config", s.name) for s in again.list("config"))]
        assert all(digest(value[:-32]) == value[-32:] for value in slots_and_config)
        if (path / "listing").exists():
            decode((path / "listing").read_bytes())
        again.close()
    assert rounds_with_work > 20 and len(there) > 50 and slots


# -- file systems


@pytest.fixture
def mounts() -> Iterator[list[str]]:
    """Mount points that are taken down at the end."""
    points: list[str] = []
    yield points
    for point in reversed(points):
        subprocess.run(["umount", point], check=False)


@root_only
@pytest.mark.root
def test_a_full_disk(tmp_path: Path, mounts: list[str]) -> None:
    image, point = tmp_path / "image", tmp_path / "mnt"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    point.mkdir()
    made = shutil.which("mkfs.ext4") or "/usr/sbin/mkfs.ext4"
    if subprocess.run([made, "-q", "-F", "-m", "0", str(image)], capture_output=True).returncode:
        pytest.skip("NOT TESTED: mkfs.ext4 does not make a file system here: install e2fsprogs")
    if subprocess.run(["mount", "-o", "loop", str(image), str(point)], capture_output=True).returncode:
        pytest.skip("NOT TESTED: this machine does not let root mount a loop device")
    mounts.append(str(point))
    store = open_store(f"dir:{point}", create=True)  # lost+found is there
    store.create("log", "000000000001", b"x" * 1000)
    store.flush()
    rng = random.Random(5)
    kept: dict[str, bytes] = {}
    with pytest.raises(StoreFull) as caught:
        while True:
            values = [rng.randbytes(200_000) for _ in range(7)]
            batch = {digest(value).hex(): value for value in values}
            store.put_many("frames", batch.items())
            kept |= batch
    assert "\n" not in str(caught.value) and len(kept) > 20
    with pytest.raises(StoreFull):
        store.put("frames", NAME, rng.randbytes(2_000_000))
    found = {stored.name: store.get("frames", stored.name) for stored in store.list("frames")}
    assert found.items() >= kept.items()
    assert all(digest(value).hex() == name for name, value in found.items())
    assert os.listdir(point / "tmp") == []
    while True:  # to the last byte
        try:
            store.put("leases", f"{rng.randrange(10**9)}", b"x" * 1000)
        except StoreFull:
            break
    with pytest.raises(StoreFull):
        store.create("log", "000000000002", b"x" * 5000)
    assert names_of(store, "log") == ["000000000001"]
    store.flush()
    assert decode((point / "listing").read_bytes()).values["log"] == {"000000000001": 1000}
    gone = list(kept)[:5]
    store.delete("frames", gone[1:])
    store.soft_delete("frames", gone[:1])
    store.purge("frames", gone[:1])
    assert store.create("log", "000000000002", b"x" * 5000)
    store.put("frames", NAME, b"x" * 300_000)
    store.flush()
    assert len(decode((point / "listing").read_bytes()).values["log"]) == 2
    assert store.get("frames", NAME) == b"x" * 300_000
    assert 0 <= (store.stat().free_bytes or 0) < 16 << 20
    store.close()
    subprocess.run(["umount", str(point)], check=True)  # nothing keeps it busy
    mounts.clear()


@root_only
@pytest.mark.root
def test_read_only_media(store: Store, path: Path, tmp_path: Path, mounts: list[str]) -> None:
    store.put("frames", NAME, b"x")
    store.flush()
    point = tmp_path / "medium"
    point.mkdir()
    if subprocess.run(["mount", "--bind", str(tmp_path), str(point)], capture_output=True).returncode:
        pytest.skip("NOT TESTED: this machine does not let root bind-mount")
    mounts.append(str(point))
    before = files_in(path)
    opened_before = open_store(f"dir:{point}/store")
    subprocess.run(["mount", "-o", "remount,bind,ro", str(point)], check=True)
    assert not opened_before.read_only
    readers = [opened_before, *(open_store(f"dir:{point}/store", read_only=said) for said in (False, True))]
    for reader in readers:
        asks: list[Callable[[], object]] = [
            lambda reader=reader: reader.put("frames", "a", b"x"),  # type: ignore[misc]
            lambda reader=reader: reader.create("frames", "a", b"x"),  # type: ignore[misc]
            lambda reader=reader: reader.delete("frames", [NAME]),  # type: ignore[misc]
            lambda reader=reader: reader.move("frames", NAME, "frames", "a"),  # type: ignore[misc]
            reader.destroy,
        ]
        for ask in asks:
            with pytest.raises(StoreReadOnly):
                ask()
        assert reader.get("frames", NAME) == b"x" and names_of(reader) == [NAME]
        reader.close()
    with pytest.raises(StoreReadOnly):
        open_store(f"dir:{point}/new", create=True)
    assert files_in(path) == before


READER = """
import os, sys
import spraydry.stores.dir
from spraydry.errors import StoreError, StoreReadOnly
from spraydry.stores.base import open_store
os.setgid(65534), os.setuid(65534)
store = open_store(sys.argv[1])
print(store.read_only, [s.name for s in store.list("log")], store.get("log", "1"))
try: store.put("log", "2", b"")
except StoreReadOnly: print("read-only")
try: store.get("frames", "a")
except StoreReadOnly: print("no")
except StoreError as error: print(str(error).rpartition(":")[2])
"""


@root_only
@pytest.mark.root
def test_a_reader_without_rights(store: Store, path: Path) -> None:
    store.put("log", "1", b"x")
    subprocess.run(["chmod", "-R", "a+rX", str(path)], check=True)
    store.put("frames", "a", b"x")
    (path / "frames" / "a").chmod(0o600)
    for folder in path.parents:
        if folder.stat().st_mode & 5 != 5:
            folder.chmod(0o755)
    got = subprocess.run([sys.executable, "-c", READER, f"dir:{path}"], capture_output=True, text=True)
    assert (got.stdout, got.stderr) == ("True ['1'] b'x'\nread-only\n Permission denied\n", "")
