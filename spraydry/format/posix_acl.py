"""POSIX ACLs: as Linux keeps them in an extended attribute, and as tar streams hold them, in text."""

from __future__ import annotations

import struct
from collections.abc import Callable

from spraydry.errors import CorruptData

ACCESS, DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
_VERSION = 2
_HEADER, _ENTRY = struct.Struct("<I"), struct.Struct("<HHI")  # version; tag, permissions, number
MINIMAL_BYTES = _HEADER.size + 3 * _ENTRY.size  # of one that says no more than the mode does
_NOBODY = 0xFFFFFFFF  # the number of an entry that has none
_USER, _NAMED_USER, _GROUP, _NAMED_GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32
_WORDS = {_USER: "user", _NAMED_USER: "user", _GROUP: "group", _NAMED_GROUP: "group", _MASK: "mask", _OTHER: "other"}
_TAGS = {
    ("user", False): _USER,
    ("user", True): _NAMED_USER,
    ("group", False): _GROUP,
    ("group", True): _NAMED_GROUP,
    ("mask", False): _MASK,
    ("other", False): _OTHER,
}
_LONG = {"u": "user", "g": "group", "m": "mask", "o": "other"}


def acl_text(value: bytes) -> str:
    """An ACL as text, users and groups by number: `user::rwx,user:1000:r-x,group::r--,mask::rwx,other::---`. Raises
    CorruptData for what is none."""
    if (len(value) - _HEADER.size) % _ENTRY.size or value[: _HEADER.size] != _HEADER.pack(_VERSION):
        raise CorruptData("an ACL that cannot be")
    parts = []
    for tag, permissions, number in _ENTRY.iter_unpack(value[_HEADER.size :]):
        if tag not in _WORDS or permissions > 7:
            raise CorruptData("an ACL that cannot be")
        name = str(number) if tag in (_NAMED_USER, _NAMED_GROUP) else ""
        bits = "".join(letter if permissions & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))
        parts.append(f"{_WORDS[tag]}:{name}:{bits}")
    return ",".join(parts)


def acl_value(text: str, user: Callable[[str], int], group: Callable[[str], int]) -> bytes:
    """The inverse, also of what other programs write: entries in lines, names instead of numbers (`user` and `group`
    give the numbers, or raise KeyError), a number behind the permissions. Raises CorruptData."""
    entries = []
    for line in text.replace(",", "\n").splitlines():
        line = "".join(line.partition("#")[0].split())
        if not line:
            continue
        fields = line.split(":")
        if len(fields) not in (3, 4):
            raise CorruptData("its ACL does not parse")
        word, name, bits = _LONG.get(fields[0], fields[0]), fields[1], fields[2]
        tag = _TAGS.get((word, bool(name)))
        if tag is None or len(bits) > 3 or set(bits) - set("rwx-"):
            raise CorruptData("its ACL does not parse")
        number = _NOBODY
        if name:
            said = fields[3] if len(fields) == 4 else name
            try:
                number = int(said) if said.isdecimal() else (user if tag == _NAMED_USER else group)(name)
            except (KeyError, ValueError):
                raise CorruptData(f"its ACL names {word} {name!r}, whom nobody knows here") from None
            if not 0 <= number < _NOBODY:
                raise CorruptData("its ACL does not parse")
        entries.append((tag, number, sum(bit for letter, bit in (("r", 4), ("w", 2), ("x", 1)) if letter in bits)))
    if len({entry[:2] for entry in entries}) != len(entries) or not {_USER, _GROUP, _OTHER} <= {e[0] for e in entries}:
        raise CorruptData("its ACL does not parse")
    packed = (_ENTRY.pack(tag, permissions, number) for tag, number, permissions in sorted(entries))
    return _HEADER.pack(_VERSION) + b"".join(packed)
