"""Entries, strategies and mutations that the format's tests share."""

from __future__ import annotations

import random
from collections.abc import Iterator

from hypothesis import strategies as st

from spraydry.format.digest import digest
from spraydry.format.entry import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    SOCKET,
    SYMLINK,
    Content,
    Entry,
    Runs,
    Subtree,
    Xattrs,
)


def entry(
    name: bytes = b"file",
    kind: int = FILE,
    size: int = 0,
    content: Content = None,
    *,
    mode: int = 0o644,
    uid: int = 1000,
    gid: int = 1000,
    mtime_s: int = 1_700_000_000,
    mtime_ns: int = 5,
    xattrs: Xattrs | bytes = (),
    group: bytes | None = None,
) -> Entry:
    """An entry, by default an empty file."""
    return Entry(name, kind, mode, uid, gid, mtime_s, mtime_ns, size, content, xattrs, group)


def file(name: bytes, size: int = 100) -> Entry:
    """A file of one chunk."""
    return entry(name, FILE, size, digest(name))


digests = st.binary(min_size=32, max_size=32)
names = st.binary(min_size=1, max_size=255).filter(
    lambda n: b"/" not in n and b"\0" not in n and n not in (b".", b"..")
)
xattr_names = st.binary(min_size=1, max_size=40).filter(lambda n: b"\0" not in n)
inline_xattrs = st.dictionaries(xattr_names, st.binary(max_size=200), max_size=4).map(
    lambda d: tuple(sorted(d.items()))
)


@st.composite
def entries(draw: st.DrawFn, name: bytes | None = None) -> Entry:
    """Any entry a file system can hold."""
    kind = draw(st.sampled_from((FILE, DIRECTORY, SYMLINK, FIFO, SOCKET, CHARACTER, BLOCK)))
    size, content = 0, None
    if kind == FILE:
        form = draw(st.sampled_from("ecr"))
        if form == "c":
            size, content = draw(st.integers(1, 4 << 20)), draw(digests)
        elif form == "r":
            size = draw(st.integers(2, 1 << 50))
            content = Runs(draw(st.none() | digests), draw(digests), draw(st.integers(0, size)))
    elif kind == DIRECTORY:
        files = draw(st.integers(0, 1 << 30))
        content = Subtree(draw(digests), files + draw(st.integers(0, 100)), files, draw(st.integers(0, 1 << 52)), files)
    elif kind == SYMLINK:
        content = draw(st.binary(min_size=1, max_size=4095).filter(lambda t: b"\0" not in t))
        size = len(content)
    elif kind in (CHARACTER, BLOCK):
        content = draw(st.integers(0, (1 << 63) - 1))
    return Entry(
        name if name is not None else draw(names),
        kind,
        draw(st.integers(0, 0o7777)),
        draw(st.integers(0, 0xFFFFFFFE)),
        draw(st.integers(0, 0xFFFFFFFE)),
        draw(st.integers(-(1 << 61), 1 << 61)),
        draw(st.integers(0, 10**9 - 1)),
        size,
        content,
        draw(inline_xattrs | digests),
        draw(st.none() | st.binary(min_size=16, max_size=16)) if kind != DIRECTORY else None,
    )


def mutations(plain: bytes, seed: int, count: int) -> Iterator[bytes]:
    """Seeded damage: flipped bits, other bytes, cuts, insertions, repetitions, numbers made huge."""
    rng = random.Random(seed)
    for _ in range(count):
        changed = bytearray(plain)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            at = rng.randrange(len(changed) + 1)
            match rng.randrange(7):
                case 0 if at < len(changed):
                    changed[at] ^= 1 << rng.randrange(8)
                case 1 if at < len(changed):
                    changed[at] = rng.choice((0, 0x7F, 0x80, 0x90, 0xC0, 0xC1, 0xC6, 0xCF, 0xD3, 0xDD, 0xDF, 0xFF))
                case 2:
                    del changed[at:]
                case 3:
                    changed[at:at] = rng.randbytes(rng.choice((1, 4, 9)))
                case 4:
                    changed[at:at] = changed[at : at + rng.randrange(1, 60)]
                case 5:
                    changed[at : at + 9] = rng.choice((b"\xcf", b"\xd3")) + rng.choice((b"\xff", b"\x7f")) + b"\xff" * 7
                case _:
                    del changed[at : at + rng.randrange(1, 10)]
        yield bytes(changed)
