"""How many values there are: always what a listing counts, and mostly known without one."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from spraydry.segments.layout import TOTALS_AT
from spraydry.segments.segments import Segments
from tests.segments.folders import key

Keys = list[bytes]


def counted(segments: Segments) -> tuple[int, int]:
    lengths = [row.length for _, row in segments.rows(b"")]
    return len(lengths), sum(lengths)


def known(segments: Segments, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """The totals, when no listing can be had."""

    def refuse(*_: object) -> None:
        raise AssertionError("it counts")

    with monkeypatch.context() as patched:
        patched.setattr(segments, "_blocks", refuse)
        return segments.totals()


@pytest.mark.parametrize("max_file_size", [500, 1 << 30])
def test_they_are_kept_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_file_size: int) -> None:
    """Through all that changes values, with reopening, and seen by a second user of the folder."""
    rng = random.Random(3)
    segments = Segments(str(tmp_path), create=True, max_file_size=max_file_size)
    other = Segments(str(tmp_path), read_only=True)
    for _ in range(400):
        keys = [key(rng.randrange(30)) for _ in range(rng.randrange(1, 5))]
        pairs = [(name, b"x" * rng.randrange(50)) for name in keys]  # a key may come twice
        what = rng.randrange(8)
        if what < 3:
            segments.put(*pairs)
        elif what < 4:
            segments.put_many(pairs)
        elif what < 5:
            segments.create(*pairs[0])
        elif what < 6:
            segments.delete(keys)
        elif what < 7:
            segments.move(keys[0], keys[-1])
        else:
            segments.reclaim()
        if not rng.randrange(10):
            segments.close()
            segments = Segments(str(tmp_path))
        assert known(segments, monkeypatch) == known(other, monkeypatch) == counted(segments)
    segments.close()
    other.close()


def test_two_writers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (Segments(str(tmp_path), create=True, max_file_size=2000) for _ in range(2))
    for number in range(60):
        one.put((key(number), b"x" * number))
        two.put((key(number // 2), b"y"), (key(f"second{number}"), b""))
        assert known(one, monkeypatch) == known(two, monkeypatch) == counted(one)
    one.close()
    two.close()


def test_a_killed_writer_leaves_none_that_are_wrong(tmp_path: Path) -> None:
    """What it appended and did not count is counted by the next, also after others wrote who knew no totals."""
    code = (
        "import os, signal, sys\nfrom spraydry.segments.folder import Folder\n"
        "from spraydry.segments.segments import Segments\n"
        "def die(folder):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "segments = Segments(sys.argv[1], create=True)\nsegments.put((b'frames\\0a', b'x'))\n"
        "Folder._keep_totals = die\nsegments.put((b'frames\\0b', b'y'), (b'frames\\0c', b'z'))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    reader = Segments(str(tmp_path), read_only=True)
    assert reader.totals() == counted(reader) == (3, 3)
    reader.close()
    writer = Segments(str(tmp_path))
    writer.put((key("d"), b"1234"))
    assert writer.totals() == counted(writer) == (4, 7)
    writer.close()


def test_they_are_forgotten_with_what_they_count(tmp_path: Path) -> None:
    """Where somebody removed a damaged segment, or damaged the totals themselves."""
    segments = Segments(str(tmp_path), create=True, max_file_size=500)
    segments.put_many((key(number), b"x" * 100) for number in range(20))
    before = segments.totals()
    segments.close()
    head = tmp_path / "segments"
    content = bytearray(head.read_bytes())
    content[TOTALS_AT + 24] ^= 1
    head.write_bytes(content)
    segments = Segments(str(tmp_path), read_only=True)
    assert segments.totals() == before
    segments.close()
    content[TOTALS_AT + 24] ^= 1
    head.write_bytes(content)
    for name in ("00000002.data", "00000002.index"):
        (tmp_path / name).unlink()
    segments = Segments(str(tmp_path))
    assert segments.totals() == counted(segments) < before
    segments.close()
