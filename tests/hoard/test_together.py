"""Bodies of many files, and groups of changes, without a server."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spraydry import Hoard
from spraydry.actions.hoard import Asked, SmallFiles, change_together, together
from spraydry.errors import Conflict, CorruptData, KeyExists, KeyNotFound
from spraydry.format.entry import Entry
from spraydry.repository.repository import Repository
from spraydry.stores.remote.hoards import decode_files, encode_files


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60), st.binary(max_size=99))))
def test_files_in_one_body_come_back(files: list[tuple[str, bytes]]) -> None:
    body = b"".join(encode_files(files))
    assert decode_files(body) == files
    for wrong in (body[:-1], body + b"\0"):
        with pytest.raises(CorruptData):
            decode_files(wrong)


@given(st.binary(max_size=300))
def test_any_bytes_are_files_or_refused(body: bytes) -> None:
    try:
        files = decode_files(body)
    except CorruptData:
        return
    assert b"".join(encode_files(files)) == body


def absent(current: Entry | None) -> None:
    if current is not None:
        raise KeyExists("there")


def present(current: Entry | None) -> None:
    if current is None:
        raise KeyNotFound("not there")


def test_a_group_is_as_if_they_came_one_after_another(repository: Repository) -> None:
    asked = [
        Asked("a", plain=b"1", check=absent),
        Asked("a", plain=b"2", check=absent),
        Asked("b", check=present),
        Asked("b", plain=b"3"),
        Asked("b", check=present),
        Asked("c", plain=b"4"),
        Asked("a", plain=b"5", check=present),
    ]
    change_together(SmallFiles(repository), "h", asked)
    assert [type(one.error) for one in asked] == [type(None), KeyExists, KeyNotFound, *[type(None)] * 4]
    hoard = Hoard("h", repository=repository)
    assert {key: hoard[key].read() for key in hoard} == {"a": b"5", "c": b"4"}
    assert repository.log.head[0] == 1


def test_of_a_group_of_which_all_are_refused_nothing_is_committed(repository: Repository) -> None:
    change_together(SmallFiles(repository), "h", [Asked("a", check=present), Asked("b", plain=b"1", check=present)])
    assert repository.log.head[0] == 0


@pytest.mark.parametrize("size", [4, 1 << 20])
def test_who_is_overtaken_looks_again(repository: Repository, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Another process puts the key after it was looked at, and before the commit."""
    with Repository.open(repository.url) as other:
        theirs = Hoard("h", repository=other)
        after, times = together._State.after, 0

        def late(*arguments: Any) -> Any:
            nonlocal times
            times += 1
            changes = after(*arguments)
            if times == 1:
                theirs["a"] = b"theirs"
            return changes

        monkeypatch.setattr(together._State, "after", late)
        mine = Asked("a", plain=b"mine", check=absent)
        change_together(SmallFiles(repository), "h", [mine, Asked("b", plain=bytes(size))])
    assert isinstance(mine.error, KeyExists) and times == 2
    hoard = Hoard("h", repository=repository)
    assert (hoard["a"].read(), hoard["b"].read()) == (b"theirs", bytes(size))


def test_a_transaction_that_is_overtaken_by_a_group(repository: Repository) -> None:
    hoard = Hoard("h", repository=repository)
    change = hoard.transaction()
    assert change.find("a") is None
    change_together(SmallFiles(repository), "h", [Asked("a", plain=b"1")])
    with pytest.raises(Conflict), change:
        change.put(io.BytesIO(b"2"), "a")
