"""Chunks and frames by their digests: whole or abbreviated, verified, told in numbers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest

from spraydry import cli
from spraydry.actions.digests import describe_frame, find_chunk, find_frame, stored_frame
from spraydry.errors import FrameCorrupt, NotFound, UsageError
from spraydry.format.digest import digest
from spraydry.repository.repository import Repository
from tests.versions import make_version

Run = Callable[..., "tuple[int, bytes, str]"]


@pytest.fixture
def spray(capfdbinary: pytest.CaptureFixture[bytes], repository_path: str) -> Run:
    def run(*arguments: str) -> tuple[int, bytes, str]:
        code = cli.run([*arguments, "--repo", repository_path])
        out, err = capfdbinary.readouterr()
        return code, out, err.decode()

    return run


def test_a_chunk_and_its_frame(repository: Repository, spray: Run, rng: random.Random) -> None:
    plain = rng.randbytes(70_000)
    make_version(repository, "r", {b"f": plain, b"g": b"text " * 5000})
    spans = json.loads(spray("stat", "--chunks", "r:f", "--json")[1])
    assert [span["offset"] for span in spans] == [0, 65536]
    assert b"".join(spray("chunk", span["digest"][:9])[1] for span in spans) == plain
    listed = spray("stat", "--chunks", "r:f")[1].decode().split()
    assert listed[2::3] == [span["digest"] for span in spans]

    chunk = spans[1]["digest"]
    where = json.loads(spray("chunk", chunk.upper(), "--json")[1])
    assert where["chunk"] == chunk and where["length"] == 70_000 - 65536
    (place,) = where["frames"]
    code, out, _ = spray("chunk", chunk, "--where")
    assert code == 0 and place["frame"] in out.decode()
    stored = spray("frame", place["frame"][:8])[1]
    assert digest(stored).hex() == place["frame"]
    assert stored == repository.store.get("frames", place["frame"])
    told = json.loads(spray("frame", place["frame"], "--json")[1])
    assert (told["frame_class"], told["codec"], told["stored_bytes"]) == ("other", "zstd", len(stored))
    assert told["plain_bytes"] == sum(held["length"] for held in told["chunks"])
    assert {"digest": chunk, "offset": place["offset"], "length": where["length"]} in told["chunks"]
    assert chunk in spray("frame", place["frame"], "--info")[1].decode()


def test_abbreviations(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    make_version(repository, "r", {b"%d" % number: b"%d" % number for number in range(400)})
    chunks = [digest(b"%d" % number) for number in range(400)]
    for name in chunks[:20]:
        assert all(find_chunk(repository, name.hex()[:length]) == name for length in (9, 32, 63, 64))
    monkeypatch.setattr("spraydry.actions.digests._LEAST_DIGITS", 2)
    beginning = next(first for first in (name.hex()[:2] for name in chunks) if sum(
        other.hex().startswith(first) for other in chunks
    ) > 1)  # fmt: skip
    among = sorted(name.hex()[:12] for name in chunks if name.hex().startswith(beginning))
    with pytest.raises(UsageError, match=f"several chunks begin with {beginning}: .*{among[0]}"):
        find_chunk(repository, beginning)
    frames = [stored.name for stored in repository.store.list("frames")]
    assert {find_frame(repository, name[:20]).hex() for name in frames} == set(frames)


@pytest.mark.parametrize("text", ["", "abc", "12345", "g" * 8, "a" * 65, "0x123456", "٣" * 8])
def test_what_is_no_digest(repository: Repository, text: str) -> None:
    for find in (find_chunk, find_frame):
        with pytest.raises(UsageError, match="hex digits"):
            find(repository, text)


def test_what_is_not_there(repository: Repository, spray: Run) -> None:
    for verb in ("chunk", "frame"):
        for text in ("00" * 32, "000000"):
            code, out, err = spray(verb, text)
            assert (code, out) == (4, b"") and err.count("\n") == 1
    with pytest.raises(NotFound):
        describe_frame(repository, bytes(32))


def test_a_damaged_frame_is_not_given_out(repository: Repository, spray: Run, rng: random.Random) -> None:
    make_version(repository, "r", {b"f": rng.randbytes(5000)})
    chunk = digest(random.Random(20260101).randbytes(5000))
    frame = repository.catalog.chunks.locate(chunk)[0].frame
    stored = bytearray(repository.store.get("frames", frame.hex()))
    stored[-9] ^= 1
    repository.store.put("frames", frame.hex(), bytes(stored))
    with pytest.raises(FrameCorrupt):
        stored_frame(repository, frame)
    for arguments in (["frame", frame.hex()], ["frame", frame.hex(), "--info"], ["chunk", chunk.hex()]):
        code, out, _ = spray(*arguments)
        assert (code, out) == (6, b"")


@pytest.mark.parametrize("verb", ["chunk", "frame", "tar"])
def test_nothing_binary_goes_to_a_terminal(
    repository: Repository, spray: Run, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    make_version(repository, "r", {b"f": b"1"})
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    code, out, err = spray(verb, "r" if verb == "tar" else digest(b"1").hex())
    assert (code, out) == (2, b"") and "terminal" in err
