"""ACLs between bytes and text."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spraydry.errors import CorruptData
from spraydry.format.posix_acl import acl_text, acl_value

NUMBERS = st.sets(st.integers(0, 2**32 - 2), max_size=4)
bits = st.integers(0, 7)


def nobody(name: str) -> int:
    raise KeyError(name)


def packed(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@given(st.data(), NUMBERS, NUMBERS)
def test_there_and_back(data: st.DataObject, users: set[int], groups: set[int]) -> None:
    none = 2**32 - 1
    value = packed(
        (1, data.draw(bits), none),
        *((2, data.draw(bits), user) for user in sorted(users)),
        (4, data.draw(bits), none),
        *((8, data.draw(bits), group) for group in sorted(groups)),
        *([(16, data.draw(bits), none)] if users or groups else []),
        (32, data.draw(bits), none),
    )
    assert acl_value(acl_text(value), nobody, nobody) == value


def test_what_other_programs_write() -> None:
    text = "user::rwx\nuser:alice:r-x\t#effective:r--\nuser:bob:rw-:1001\ng::r-x\ngroup:staff:r\nm::rwx\nother::---\n"
    wanted = "user::rwx,user:1000:r-x,user:1001:rw-,group::r-x,group:50:r--,mask::rwx,other::---"
    assert acl_text(acl_value(text, {"alice": 1000}.__getitem__, {"staff": 50}.__getitem__)) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "user::rwx",
        "user::rwx,group::r-x,other::r-x,other::r-x",
        "user::rwx,group::r-x,other:5:r-x",
        "user::rwz,group::r-x,other::r-x",
        "user::rwx,group::r-x,other::rwxr",
        "who::rwx,group::r-x,other::r-x",
        "user::rwx:1:2,group::r-x,other::r-x",
        "user::rwx,user:alice:rwx,group::r-x,other::r-x",
        f"user::rwx,user:{2**32 - 1}:rwx,group::r-x,other::r-x",
        f"user::rwx,user:{'9' * 5000}:rwx,group::r-x,other::r-x",
    ],
)
def test_text_that_is_none(text: str) -> None:
    with pytest.raises(CorruptData):
        acl_value(text, nobody, nobody)


@pytest.mark.parametrize("value", [b"", b"\2\0\0\0\1", b"\3\0\0\0", packed((3, 7, 0)), packed((1, 8, 0))])
def test_bytes_that_are_none(value: bytes) -> None:
    with pytest.raises(CorruptData):
        acl_text(value)
