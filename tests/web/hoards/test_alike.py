"""A hoard is the same mapping wherever it lies: here, behind a server, behind two of which one is killed meanwhile."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from spraydry import Hoard
from spraydry.actions.hoard.remote import RemoteHoard
from spraydry.errors import Conflict, HoardNotFound, KeyExists, KeyNotFound, UsageError
from spraydry.format.digest import digest
from spraydry.stores.remote import server as asking
from tests.repositories import Run, caller
from tests.web.serving import serving

PLACES = ("here", "served", "one-killed")


def nothing() -> None:
    pass


@pytest.fixture(params=PLACES)
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Callable[[], object]]]:
    """The address of a repository, and what goes wrong in the middle."""
    monkeypatch.setattr(asking, "_GREETING_S", 60.0)  # a slow machine is no dead server
    url = f"sqlite:{tmp_path / 'repository.sqlite'}"
    Hoard("other", url, create=True).close()
    if request.param == "here":
        yield url, nothing
        return
    with ExitStack() as stack:
        names = "ab" if request.param == "one-killed" else "a"
        servers = [stack.enter_context(serving(tmp_path / name, SPRAYDRY_REPO=url)) for name in names]
        address = "http://" + ",".join(f"127.0.0.1:{server.port}" for server in servers)
        yield address, servers[0].kill if len(servers) > 1 else nothing


@pytest.fixture
def hoard(place: tuple[str, Callable[[], object]]) -> Iterator[Hoard]:
    with Hoard("h", place[0]) as opened:
        assert isinstance(opened, RemoteHoard) == place[0].startswith("http")
        yield opened


def test_the_mapping(hoard: Hoard, place: tuple[str, Callable[[], object]]) -> None:
    with pytest.raises(HoardNotFound):
        hoard.check_there()
    assert len(hoard) == 0 and list(hoard) == [] and not hoard and hoard.get("a") is None
    hoard.update({"a": b"1", "b/c": io.BytesIO(b"22")}, d=b"")
    assert hoard.setdefault("e", b"333") == b"333" and hoard.setdefault("e", b"4").read() == b"333"
    place[1]()
    hoard.ping()
    hoard.check_there()
    assert len(hoard) == 4 and list(hoard.keys()) == ["a", "b/c", "d", "e"] and "b/c" in hoard and "b" not in hoard
    assert [(key, stream.read()) for key, stream in hoard.items()] == [
        ("a", b"1"),
        ("b/c", b"22"),
        ("d", b""),
        ("e", b"333"),
    ]
    assert [stream.read() for stream in hoard.values()] == [b"1", b"22", b"", b"333"]
    assert hoard.get("no", 7) == hoard.pop("no", 7) == 7 and 5 not in hoard
    assert hoard.pop("e").read() == b"333"
    key, stream = hoard.popitem()
    assert (key, stream.read()) == ("a", b"1") and list(hoard) == ["b/c", "d"]
    for missing in (lambda: hoard["a"], lambda: hoard.pop("a"), lambda: hoard.delete("a")):
        with pytest.raises(KeyError, match="h/a is not there") as caught:
            missing()
        assert type(caught.value) is KeyNotFound
    with pytest.raises(KeyExists, match="h/d is there already"):
        hoard.put(b"x", "d", new=True)
    kept = hoard.put(b"2", "b/c")
    assert kept == hoard.find("b/c") and (kept.size, kept.digest) == (1, digest(b"2"))
    assert [event.entry and event.entry.size for event in hoard.history("b/c")] == [2, 1]
    for name in ("", "a//b", "x" * 256, "\n"):
        with pytest.raises(UsageError):
            hoard[name] = b""
    assert hoard.undelete("b/c").size == 2 and hoard["b/c"].read() == b"22"
    assert hoard.url("b/c", server="https://example.org/x/") == "https://example.org/x/hoards/h/b/c"
    with pytest.raises(KeyNotFound, match="h/no is not there"):
        hoard.url("no", server="https://example.org")
    with pytest.raises(UsageError, match="is not the address of a server"):
        hoard.url("b/c", server="example.org")
    if not isinstance(hoard, RemoteHoard):
        with pytest.raises(UsageError, match="a link leads to a server"):
            hoard.url("b/c")
    hoard.clear()
    assert list(hoard) == [] and not hoard
    hoard.clear()


def test_transactions(hoard: Hoard, place: tuple[str, Callable[[], object]]) -> None:
    hoard["old"] = b"old"
    place[1]()
    change = hoard.transaction()
    change.put(b"new", "a")
    change.delete("old")
    assert change.get("a").read() == b"new" and not change.has("old") and [one.key for one in change.list()] == ["a"]
    assert list(hoard) == ["old"]
    change.prepare()
    assert change.state == "prepared" and list(hoard) == ["old"]
    with pytest.raises(UsageError, match="is prepared"):
        change.put(b"", "b")
    assert isinstance(change.commit(), int) and change.state == "committed" and list(hoard) == ["a"]
    with pytest.raises(UsageError, match="is committed: begin another one"):
        change.commit()
    change = hoard.transaction()
    change.put(b"never", "a")
    change.prepare()
    change.abort()
    change.abort()
    assert change.state == "aborted" and hoard["a"].read() == b"new"
    with hoard.transaction() as change:
        assert change.find("a") is not None
    assert change.state == "committed"
    one, other = hoard.transaction(), hoard.transaction()
    one.put(b"one", "c")
    other.put(b"other", "c")
    one.commit()
    with pytest.raises(Conflict, match="begin anew"):
        other.prepare()
    other.abort()
    with pytest.raises(KeyNotFound), hoard.transaction() as change:
        change.put(b"x", "x")
        change.delete("missing")
    assert list(hoard) == ["a", "c"]


def test_the_verbs_say_the_same(
    place: tuple[str, Callable[[], object]],
    tmp_path: Path,
    capsysbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And where servers are asked, no catalog of the repository is made."""
    spraydry: Run = caller(capsysbinary)  # type: ignore[arg-type]
    monkeypatch.setenv("SPRAYDRY_REPO", place[0])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_bytes(b"hello\n")
    Path("b.bin").write_bytes(large := random.randbytes(5 << 20))
    assert spraydry("put", "a.txt", "h/x")[1] == b"h/x: 6 B\n"
    assert spraydry("put", "a.txt", "b.bin", "h/p/")[1].splitlines() == [b"h/p/a.txt: 6 B", b"h/p/b.bin: 5.0 MiB"]
    name = spraydry("put", "a.txt")[1].strip()
    assert name.decode() == digest(b"hello\n").hex() and spraydry("get", name.decode())[1] == b"hello\n"
    place[1]()
    assert b"h/x is there already" in spraydry("put", "a.txt", "h/x", "--new", code=5)[2]
    assert b"no such file" in spraydry("put", "nothing", "h/y", code=4)[2].lower()
    assert spraydry("get", "h/x")[1] == b"hello\n"
    assert spraydry("get", "h/p/b.bin", "--range", "4500000-4500009")[1] == large[4500000:4500010]
    assert b"is not there: `spraydry keys h` lists" in spraydry("get", "h/no", code=4)[2]
    assert spraydry("keys", "h")[1] == b"p/a.txt\np/b.bin\nx\n"
    assert spraydry("keys", "h", "p/", "--long")[1].count(b"\n") == 2
    assert b"there is no hoard 'none'" in spraydry("keys", "none", code=4)[2]
    assert b"h/y was never there" in spraydry("keys", "h", "--history", "y", code=4)[2]
    assert spraydry("delete", "h/x", "--dry-run")[1] == b"would delete h/x\n"
    assert b"h/no is not there" in spraydry("delete", "h/x", "h/no", code=4)[2]
    assert b"h/no is not there" in spraydry("delete", "h/x", "h/no", "--dry-run", code=4)[2]
    assert spraydry("delete", "h/x")[1] == b"deleted h/x\n"
    assert spraydry("keys", "h", "--history", "x")[1].count(b"\n") == 3
    assert spraydry("undelete", "h/x", "--dry-run")[1] == b"would bring back h/x: 6 B\n"
    assert spraydry("undelete", "h/x")[1] == b"brought back h/x: 6 B\n"
    assert b"h/x never named anything else" in spraydry("undelete", "h/x", code=4)[2]
    assert b"there is no hoard 'none'" in spraydry("undelete", "none/x", code=4)[2]
    spraydry("delete", "h/x")
    assert spraydry("delete", "--all", "h", "--dry-run")[1] == b"would delete all of h: 2 keys\n"
    assert spraydry("delete", "--all", "h")[1] == b"deleted all of h: 2 keys\n"
    assert b"there is no hoard 'none'" in spraydry("delete", "--all", "none", code=4)[2]
    assert spraydry("keys", "h")[1] == b""
    assert not place[0].startswith("http") or not list(tmp_path.rglob("cache/**/*.sqlite"))
