"""`spraydry.Hoard` over servers: the same interface, without a catalog of the repository."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from spraydry import Hoard
from spraydry.actions.hoard.remote import RemoteHoard
from spraydry.actions.hoard.remote.talk import Talk
from spraydry.errors import (
    Conflict,
    CorruptData,
    HoardNotFound,
    KeyExists,
    KeyNotFound,
    NotFound,
    SprayDryError,
    StoreUnavailable,
    UsageError,
)
from spraydry.format.digest import digest
from spraydry.stores.remote import hoards as wire
from spraydry.stores.remote import patience
from spraydry.stores.remote import server as asking
from spraydry.stores.remote.server import Server
from tests.web.hoards.talking import ask, key
from tests.web.serving import Running, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("served")
    base = {f"XDG_{what}_HOME": str(folder / what) for what in ("CACHE", "DATA", "STATE")}
    with serving(folder, SPRAYDRY_REPO=str(folder / "repository.sqlite"), **base) as running:
        yield running


@pytest.fixture
def hoard(server: Running, request: pytest.FixtureRequest) -> Iterator[Hoard]:
    with Hoard(request.node.name.partition("[")[0], server.url) as opened:
        yield opened


def test_a_mapping(hoard: Hoard) -> None:
    assert isinstance(hoard, RemoteHoard) and list(hoard) == [] and len(hoard) == 0 and "a" not in hoard
    hoard["a/b c.txt"] = b"one"
    assert hoard["a/b c.txt"].read() == b"one" and hoard.get("no") is None
    kept = hoard.put(io.BytesIO(b"two"), "ü/🌍")
    assert (kept.size, kept.digest) == (3, digest(b"two"))
    assert list(hoard) == ["a/b c.txt", "ü/🌍"] and len(hoard) == 2
    assert [one.key for one in hoard.list("ü/")] == ["ü/🌍"]
    found = hoard.find("ü/🌍")
    assert found is not None and found.digest == digest(b"two") and hoard.open(found).read() == b"two"
    hoard["empty"] = b""
    empty = hoard.find("empty")
    assert empty is not None and empty.size == 0 and empty.digest == digest(b"") and hoard["empty"].read() == b""
    with pytest.raises(KeyExists):
        hoard.put(b"x", "a/b c.txt", new=True)
    del hoard["a/b c.txt"]
    for wrong in (lambda: hoard["a/b c.txt"], lambda: hoard.delete("a/b c.txt")):
        with pytest.raises(KeyNotFound, match="is not there"):
            wrong()
    assert [event.entry is None for event in hoard.history("a/b c.txt")] == [False, True]
    with pytest.raises(KeyNotFound):
        list(hoard.history("never"))
    hoard.ping()
    hoard.clear()
    assert list(hoard) == []


def test_what_can_be_no_key_or_hoard(hoard: Hoard, server: Running) -> None:
    for name in ("", "a//b", "../a", "a\n", "x" * 256, "\udc80"):
        for wrong in (lambda name=name: hoard[name], lambda name=name: hoard.put(b"", name)):
            with pytest.raises(UsageError):
                wrong()
    with pytest.raises(UsageError):
        Hoard("a b", server.url)
    with pytest.raises(HoardNotFound):
        list(hoard.history("a"))


def test_large_streams_seek(hoard: Hoard, tmp_path: Path) -> None:
    plain = random.Random(4).randbytes(11 << 20)
    (tmp_path / "file").write_bytes(plain)
    hoard.put(tmp_path / "file", "path")
    hoard.put(Once(plain), "once")
    for name in ("path", "once"):
        with hoard[name] as stream:
            assert stream.read() == plain
            for at in (0, 5 << 20, len(plain) - 10, 1 << 20, len(plain)):
                stream.seek(at)
                assert stream.read(100) == plain[at : at + 100]
            assert stream.seek(-3, io.SEEK_END) == len(plain) - 3 and stream.read() == plain[-3:]
    with pytest.raises(OSError, match="No such file"):
        hoard.put(tmp_path / "missing", "missing")
    with pytest.raises(ZeroDivisionError):
        hoard.put(Once(plain, fails=True), "failing")
    assert sorted(hoard) == ["once", "path"]


class Once(io.RawIOBase):
    """A stream that cannot go back, and may fail in the middle."""

    def __init__(self, plain: bytes, fails: bool = False) -> None:
        self._inner = io.BytesIO(plain)
        self._fails = fails

    def read(self, size: int = -1) -> bytes:
        if self._fails and self._inner.tell() > 3 << 20:
            raise ZeroDivisionError
        return self._inner.read(size)

    def seekable(self) -> bool:
        return False


def test_many_at_once(hoard: Hoard) -> None:
    files = {f"{place % 5}/{place}": random.randbytes(place) for place in range(1500)}
    files["long"] = random.randbytes(3 << 20)
    assert hoard.put_many(files.items()) == 1501
    assert sorted(hoard) == sorted(files) and len(hoard) == 1501
    for name in ("long", "0/0", "4/1499", "2/777"):
        assert hoard[name].read() == files[name]


def test_what_is_overwritten_while_it_is_read_is_never_mixed(hoard: Hoard) -> None:
    first, second = (random.Random(seed).randbytes(6 << 20) for seed in (1, 2))
    hoard["a"] = first
    with hoard["a"] as stream:
        assert stream.read(1000) == first[:1000]
        hoard["a"] = second
        with pytest.raises(KeyNotFound, match="overwritten while it was read"):
            stream.read()
    assert hoard["a"].read() == second


def test_transactions(hoard: Hoard) -> None:
    hoard["old"] = b"old"
    with hoard.transaction() as change:
        change.put(io.BytesIO(b"1"), "a")
        change.put(io.BytesIO(b"2" * (2 << 20)), "large")
        change.delete("old")
        assert change.has("a") and not change.has("old") and change.get("large").read() == b"2" * (2 << 20)
        assert [kept.key for kept in change.list()] == ["a", "large"]
        assert list(hoard) == ["old"]
    assert list(hoard) == ["a", "large"]
    with pytest.raises(ZeroDivisionError), hoard.transaction() as change:
        change.put(io.BytesIO(b"3"), "b")
        raise ZeroDivisionError
    assert list(hoard) == ["a", "large"]
    one, other = hoard.transaction(), hoard.transaction()
    one.put(io.BytesIO(b"one"), "c", new=True)
    other.put(io.BytesIO(b"other"), "c", new=True)
    one.prepare()
    assert isinstance(one.commit(), int) and one.state == "committed"
    with pytest.raises((Conflict, KeyExists)):
        other.commit()
    assert other.state == "aborted" and hoard["c"].read() == b"one"
    with pytest.raises(UsageError, match="begin another"):
        other.put(io.BytesIO(b""), "c")


def test_a_server_that_gives_other_bytes(hoard: Hoard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file of up to 4 MiB no part is given before all of it was compared, of a longer one no chunk before that
    was."""
    hoard["a"] = plain = random.randbytes(3 << 20)
    hoard["long"] = random.randbytes(9 << 20)
    hoard["holes"] = random.randbytes(1 << 20) + bytes(7 << 20) + random.randbytes(1 << 20)
    found, long = hoard.find("a"), hoard.find("long")
    assert found is not None and long is not None
    with hoard.open(found) as stream:
        stream.seek(2 << 20)
        assert stream.read(10) == plain[2 << 20 :][:10]
    whole = Talk.read

    def lying(self: Talk, name: str, start: int, length: int, tag: str | None) -> tuple[bytes, int, str]:
        part, size, found = whole(self, name, start, length, tag)
        return part[:-1] + bytes([part[-1] ^ 1]), size, found

    monkeypatch.setattr(Talk, "read", lying)
    with pytest.raises(CorruptData, match="other bytes"):
        hoard["a"]
    with hoard.open(found) as stream:
        for _ in range(2):
            stream.seek(1 << 20)
            with pytest.raises(CorruptData, match="other bytes"):
                stream.read(10)
    for at in (0, 1, 5 << 20, (9 << 20) - 1):
        with hoard.open(long) as stream:
            for _ in range(2):
                stream.seek(at)
                with pytest.raises(CorruptData, match="other bytes"):
                    stream.read(10)
    for name in ("long", "holes"):
        with pytest.raises(CorruptData, match="other bytes"), hoard[name] as stream:
            stream.read()


def test_a_server_that_tells_of_other_chunks(hoard: Hoard, monkeypatch: pytest.MonkeyPatch) -> None:
    hoard["long"] = plain = random.randbytes(5 << 20)
    found = hoard.find("long")
    assert found is not None
    message = Talk._message

    def lies(spans: wire.Spans) -> Iterator[wire.Spans]:
        (length, chunk), *rest = spans.spans
        yield replace(spans, spans=())
        yield replace(spans, spans=((length, "0" * 64), *rest))
        yield replace(spans, spans=((length + 1, chunk), *rest))
        yield replace(spans, spans=((length, None), *rest))
        yield replace(spans, spans=(((4 << 20) + 1, chunk),))
        yield replace(spans, spans=((1 << 60, None),))
        yield replace(spans, offset=spans.offset + 1)
        yield replace(spans, size=spans.size + 1)
        yield replace(spans, tag='"other"')

    for number in range(9):

        def lying(self: Talk, method: str, path: str, kind: Any, *arguments: Any, number: int = number) -> Any:
            told = message(self, method, path, kind, *arguments)
            return list(lies(told))[number] if kind is wire.Spans else told

        monkeypatch.setattr(Talk, "_message", lying)
        with hoard.open(found) as stream:
            stream.seek(2 << 20)
            if number == 3:  # a hole: what is wrong is seen at the end
                stream.seek(0)
            with pytest.raises((CorruptData, KeyNotFound)):
                stream.read()
    monkeypatch.setattr(Talk, "_message", message)
    assert hoard["long"].read() == plain


def test_holes_and_parts_of_long_files(hoard: Hoard) -> None:
    chance = random.Random(6)
    plain = chance.randbytes(1 << 20) + bytes(20 << 20) + chance.randbytes(6 << 20) + bytes(3 << 20)
    hoard["a"] = plain
    with hoard["a"] as stream:
        assert stream.read() == plain
        for _ in range(200):
            at, length = chance.randrange(len(plain) + 10), chance.choice((1, 1000, 300_000, 5 << 20))
            stream.seek(at)
            assert stream.read(length) == plain[at : at + length]
    change = hoard.transaction()
    change.put(plain[::-1], "b")
    with change.get("b") as stream:
        stream.seek(9 << 20)
        assert stream.read(5 << 20) == plain[::-1][9 << 20 :][: 5 << 20]
    change.abort()


def test_one_of_two_servers_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every put that was acknowledged is there, and none fails for it."""
    monkeypatch.setenv(patience.VARIABLE, "0")
    monkeypatch.setattr(asking, "_GREETING_S", 60.0)  # a slow machine is no dead server
    url = f"dir:{tmp_path / 'store'}"
    with Hoard("photos", url, create=True) as made:
        made["first"] = b"1"
    with (
        serving(tmp_path / "a", SPRAYDRY_REPO=url) as a,
        serving(tmp_path / "b", SPRAYDRY_REPO=url) as b,
        Hoard("photos", f"http://127.0.0.1:{a.port},127.0.0.1:{b.port}") as hoard,
    ):
        failed: list[SprayDryError] = []

        def put(first: int) -> None:
            for place in range(first, 60, 4):
                try:
                    hoard.put(b"%d" % place, f"{place}", new=True)
                except SprayDryError as error:
                    failed.append(error)

        threads = [threading.Thread(target=put, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        while len(hoard) < 12:
            assert failed == []
        a.kill()
        for thread in threads:
            thread.join()
        assert failed == [] and len(hoard) == 61
        assert all(hoard[f"{place}"].read() == b"%d" % place for place in range(60))
        change = hoard.transaction()
        change.put(io.BytesIO(b"x"), "x")
        b.kill()
        with pytest.raises(StoreUnavailable):
            change.commit()
        with pytest.raises(StoreUnavailable):
            hoard.ping()


def test_links(hoard: Hoard, server: Running) -> None:
    hoard["a b/ü.txt"] = b"linked"
    link = hoard.url("a b/ü.txt")
    assert link.startswith(server.url + "/hoards/")
    assert ask(server, "GET", link.removeprefix(server.url)).body == b"linked"
    assert hoard.url("a b/ü.txt", server="https://example.org/x/").startswith("https://example.org/x/hoards/")
    with pytest.raises(NotFound):
        hoard.url("missing")
    for seconds in (0, -1, 1e12):
        with pytest.raises(SprayDryError):
            hoard.url("a b/ü.txt", expires_s=seconds)


def test_it_is_the_same_hoard(hoard: Hoard, server: Running) -> None:
    ask(server, "PUT", key("a", hoard.name), b"plain HTTP")
    assert hoard["a"].read() == b"plain HTTP"


def test_without_a_key(hoard: Hoard, server: Running) -> None:
    for size in (0, 10, 3 << 20):
        plain = random.randbytes(size)
        kept = hoard.put_unnamed(io.BytesIO(plain))
        assert kept.key == digest(plain).hex() and kept.size == size
        assert ask(server, "GET", f"/v1/files/{kept.key}").body == plain
    put = ask(server, "PUT", "/v1/files", b"by curl")
    assert put.status == 200 and put.json["key"] == put.json["digest"] == digest(b"by curl").hex()
    assert ask(server, "GET", f"/v1/files/{'0' * 64}").status == 404


def test_an_answer_that_is_lost_is_recognised(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request was heard, and is sent again to another address: what it did the first time counts."""
    request, lost = Server.request, 0

    def losing(self: Server, method: str, *arguments: Any, **options: Any) -> Any:
        nonlocal lost
        answer = request(self, method, *arguments, **options)
        if (method in ("PUT", "DELETE") or "/undelete/" in arguments[0]) and not lost:
            lost += 1
            raise StoreUnavailable("cut off")
        return answer

    url = f"http://127.0.0.1:{server.port},localhost:{server.port}"
    monkeypatch.setattr(Server, "request", losing)
    with Hoard("lost", url) as hoard:
        assert hoard.put(b"mine", "a", new=True).size == 4 and lost == 1
    lost = 0
    with Hoard("lost", url) as hoard:
        hoard.delete("a")
        assert lost == 1 and list(hoard) == []
        hoard["a"] = b"theirs"
    lost = 0
    with Hoard("lost", url) as hoard, pytest.raises(KeyExists):
        hoard.put(b"mine", "a", new=True)
    lost = 1
    with Hoard("lost", url) as hoard:
        hoard["a"] = b"newer"
        lost = 0
        assert hoard.undelete("a").size == 6 and lost == 1 and hoard["a"].read() == b"theirs"
