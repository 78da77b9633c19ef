"""Hoards through the Python API: a mapping from keys to files, checkpoints, transactions, history."""

from __future__ import annotations

import io
import random
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import spraydry
from spraydry import Hoard
from spraydry.actions.hoard import Transaction, checkpoint
from spraydry.errors import Conflict, KeyExists, KeyNotFound, UsageError
from spraydry.format.digest import digest
from spraydry.format.keys import key_of, name_of
from spraydry.repository.repository import Repository


@pytest.fixture
def hoard(repository: Repository) -> Hoard:
    return Hoard("photos", repository=repository)


@pytest.fixture
def other(repository_path: str, hoard: Hoard) -> Iterator[Hoard]:
    """The same hoard, as another process would have it."""
    with Hoard("photos", repository_path) as opened:
        yield opened


def held(hoard: Hoard) -> dict[str, bytes]:
    return {key: hoard[key].read() for key in hoard}


def test_files_come_back(hoard: Hoard, tmp_path: Path, rng: random.Random) -> None:
    large = rng.randbytes(3_000_000) + bytes(1 << 20) + b"end"
    (tmp_path / "file").write_bytes(b"from a path")
    hoard.put(b"", "nothing")
    hoard.put(io.BytesIO(large), "a/large.bin")
    hoard.put(tmp_path / "file", "a/from path")
    hoard["ä/ß"] = b"unicode"
    assert list(hoard) == ["a/from path", "a/large.bin", "nothing", "ä/ß"] and len(hoard) == 4
    assert held(hoard) == {"a/from path": b"from a path", "a/large.bin": large, "nothing": b"", "ä/ß": b"unicode"}
    stream = hoard["a/large.bin"]
    stream.seek(2_999_998)
    assert stream.read(4) == large[2_999_998:3_000_002]
    kept = hoard.find("a/large.bin")
    assert kept is not None and (kept.size, kept.digest) == (len(large), digest(large))
    assert [kept.key for kept in hoard.list("a/")] == ["a/from path", "a/large.bin"]
    assert [kept.key for kept in hoard.list("a/", after="a/from path")] == ["a/large.bin"]
    assert "nothing" in hoard and "a" not in hoard and 5 not in hoard
    assert hoard.get("a") is None and hoard.get("a", 1) == 1
    with pytest.raises(KeyNotFound, match="photos/a is not there"):
        hoard["a"]
    with pytest.raises(KeyError):
        del hoard["a"]


def test_overwriting_deleting_and_history(hoard: Hoard) -> None:
    hoard["a"] = b"one"
    hoard["b"] = b"other"
    hoard["a"] = b"two"
    del hoard["a"]
    assert held(hoard) == {"b": b"other"}
    hoard["a"] = b"three"
    sizes = [None if event.entry is None else event.entry.size for event in hoard.history("a")]
    assert sizes == [3, 3, None, 5] and [event.slot for event in hoard.history("a")] == [1, 3, 4, 5]
    hoard.clear()
    assert held(hoard) == {} and len(hoard) == 0
    assert [event.slot for event in hoard.history("b")] == [2, 6]
    with pytest.raises(KeyNotFound):
        list(hoard.history("c"))
    with pytest.raises(KeyExists):
        hoard["x"] = b""
        hoard.put(b"", "x", new=True)


@pytest.mark.parametrize(
    "key", ["", "/", "a/", "/a", "a//b", ".", "a/../b", "a\n", "\x7f", "x\x85", "x" * 256, "\ud800"]
)
def test_keys_that_cannot_be(hoard: Hoard, key: str) -> None:
    for wrong in (lambda: hoard.put(b"", key), lambda: hoard.has(key), lambda: hoard.delete(key)):
        with pytest.raises(UsageError):
            wrong()
    assert len(hoard) == 0


def test_hoards_are_apart(repository: Repository, hoard: Hoard) -> None:
    other = Hoard("other", repository=repository)
    hoard["a"] = b"one"
    assert "a" not in other and len(other) == 0
    other["a"] = b"two"
    hoard.clear()
    assert held(other) == {"a": b"two"} and repository.log.hoards.names() == ["other"]


def test_checkpoints_keep_everything(repository_path: str, hoard: Hoard, other: Hoard) -> None:
    hoard.put_many((f"{n % 7}/{n}", str(n).encode()) for n in range(3000))
    assert checkpoint(hoard.repository, "photos") and not checkpoint(hoard.repository, "photos")
    del hoard["3/10"]
    hoard["3/17"] = b"new"
    hoard["new"] = b"new"
    expected = {f"{n % 7}/{n}": str(n).encode() for n in range(3000)} | {"3/17": b"new", "new": b"new"}
    del expected["3/10"]
    for _ in range(2):
        for seen in (hoard, other, Hoard("photos", repository_path)):
            assert len(seen) == 3000 and "3/10" not in seen
            assert list(seen) == sorted(expected, key=name_of)
            assert [kept.key for kept in seen.list("3/1", after="3/1025")] == [
                key for key in sorted(expected) if key.startswith("3/1") and key > "3/1025"
            ]
            assert all(seen[key].read() == expected[key] for key in ("3/17", "0/2996", "6/6"))
        assert checkpoint(hoard.repository, "photos")
        hoard["late"] = b""
        expected["late"] = b""
        key = min(expected)
        del hoard[key], expected[key]


def test_put_many_makes_checkpoints_by_itself(hoard: Hoard, other: Hoard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spraydry.actions.hoard.checkpoints._LEAST", 100)
    for n in range(250):
        hoard[str(n)] = b"x"
    view = other.repository.log.hoards.view("photos")
    assert len(other) == 250
    view = other.repository.log.hoards.view("photos")
    assert view.upto == 201 and len(view.changes) == 50


def test_threads_share_a_hoard(hoard: Hoard, other: Hoard) -> None:
    def work(number: int) -> None:
        for turn in range(12):
            key = f"{number}/{turn}"
            if turn % 4 == 3:
                with hoard.transaction() as change:
                    change.put(b"%d" % turn, key)
                    change.put(b"%d" % turn, f"{number}/last")
            else:
                hoard[key] = b"%d" % turn * (1 if turn % 4 else 100_000)
            assert hoard[key].read(2) == (b"%d" % turn * (1 if turn % 4 else 2))[:2]
            assert f"{number}/{turn}" in [kept.key for kept in hoard.list(f"{number}/")]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(other) == 4 * 13 and all(other[f"{number}/last"].read() == b"11" for number in range(4))


class TestTransactions:
    def test_nothing_is_seen_before_commit(self, hoard: Hoard, other: Hoard) -> None:
        hoard["a"] = b"old"
        with hoard.transaction() as change:
            change.put(io.BytesIO(b"new"), "a")
            change.put(b"more", "b")
            assert change.get("a").read() == b"new" and change.has("b")
            assert [kept.key for kept in change.list()] == ["a", "b"]
            assert held(other) == held(hoard) == {"a": b"old"}
            change.delete("b")
            change.put(io.BytesIO(b"c"), "c")
        assert held(other) == held(hoard) == {"a": b"new", "c": b"c"}
        assert len(hoard.repository.log.records) == 2

    def test_abort_leaves_nothing(self, hoard: Hoard, other: Hoard) -> None:
        with pytest.raises(ZeroDivisionError), hoard.transaction() as change:
            change.put(io.BytesIO(b"new"), "a")
            raise ZeroDivisionError
        change.abort()
        assert held(other) == {} and len(hoard.repository.log.records) == 0
        with pytest.raises(UsageError, match="aborted"):
            change.put(io.BytesIO(b""), "b")

    def test_one_of_two_on_one_key_fails(self, hoard: Hoard, other: Hoard) -> None:
        hoard["a"] = b"old"
        first, second = hoard.transaction(), other.transaction()
        assert first.get("a").read() == second.get("a").read() == b"old"
        for change in (first, second):
            change.put(io.BytesIO(b"mine"), "a")
            change.put(io.BytesIO(str(id(change)).encode()), str(id(change)))
        first.prepare()
        second.prepare()
        second.commit()
        with pytest.raises(Conflict, match="photos/a was changed"):
            first.commit()
        assert first.state == "aborted" and str(id(first)) not in hoard

    def test_conflicts_are_seen_over_checkpoints(self, hoard: Hoard, other: Hoard) -> None:
        hoard["a"], hoard["b"] = b"a", b"b"
        checkpoint(hoard.repository, "photos")
        change, same = hoard.transaction(), hoard.transaction()
        assert not change.has("c") and change.has("a") and same.has("b")
        same.put(io.BytesIO(b"1"), "x")
        change.put(io.BytesIO(b"1"), "y")
        other["c"] = b""
        checkpoint(other.repository, "photos")
        same.commit()
        with pytest.raises(Conflict, match="photos/c"):
            change.prepare()
        change.abort()

    def test_other_keys_are_no_conflict(self, hoard: Hoard, other: Hoard) -> None:
        with hoard.transaction() as change:
            change.put(io.BytesIO(b"a"), "a")
            other["b"] = b"b"
        assert held(other) == {"a": b"a", "b": b"b"}

    def test_new_keys_are_new(self, hoard: Hoard, other: Hoard) -> None:
        with pytest.raises(KeyExists), hoard.transaction() as change:
            change.put(io.BytesIO(b"a"), "a", new=True)
            other["a"] = b"other"
        assert held(hoard) == {"a": b"other"}


@given(st.text(max_size=100))
def test_names_of_keys(key: str) -> None:
    try:
        name = name_of(key)
    except UsageError:
        return
    assert key_of(name) == key and b"/" not in name


KEYS = st.sampled_from(["a", "a/b", "a-b", "b/c/d", "ä", "z"])
CONTENTS = st.builds(
    lambda size, seed: random.Random(seed).randbytes(size),
    st.one_of(st.integers(0, 20), st.sampled_from([16_384, 65_536, 300_000, 700_000])),
    st.integers(0, 3),
)


class AgainstDict(RuleBasedStateMachine):
    """A hoard does what a dict does, whatever the sizes, in transactions and out of them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.repository = spraydry.open(self.folder.name + "/r.sqlite", create=True)
        self.hoard = Hoard("h", repository=self.repository)
        self.model: dict[str, bytes] = {}
        self.change: tuple[Transaction, dict[str, bytes]] | None = None

    @rule(key=KEYS, content=CONTENTS)
    def put(self, key: str, content: bytes) -> None:
        if self.change is not None:
            self.change[0].put(io.BytesIO(content), key)
            self.change[1][key] = content
        else:
            self.hoard[key] = self.model[key] = content

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        change, model = self.change or (self.hoard, self.model)
        if key in model:
            change.delete(key)
            del model[key]
        else:
            with pytest.raises(KeyError):
                change.delete(key)

    @rule()
    def clear(self) -> None:
        if self.change is None:
            self.hoard.clear()
            self.model.clear()

    @rule()
    def fold(self) -> None:
        checkpoint(self.repository, "h")

    @rule()
    def reopen(self) -> None:
        if self.change is None:
            self.repository.close()
            self.repository = spraydry.open(self.folder.name + "/r.sqlite")
            self.hoard = Hoard("h", repository=self.repository)

    @rule()
    def begin(self) -> None:
        if self.change is None:
            self.change = self.hoard.transaction(), dict(self.model)

    @rule(commit=st.booleans())
    def end(self, commit: bool) -> None:
        if self.change is not None:
            change, model = self.change
            self.change = None
            if commit:
                change.commit()
                self.model = model
            else:
                change.abort()

    @invariant()
    def same(self) -> None:
        assert list(self.hoard) == sorted(self.model, key=name_of) and len(self.hoard) == len(self.model)
        assert held(self.hoard) == self.model
        if self.change is not None:
            change, model = self.change
            assert {kept.key: change.get(kept.key).read() for kept in change.list()} == model

    def teardown(self) -> None:
        if self.change is not None:
            self.change[0].abort()
        self.repository.close()
        self.folder.cleanup()


TestAgainstDict = AgainstDict.TestCase
TestAgainstDict.settings = settings(max_examples=15, stateful_step_count=25)
