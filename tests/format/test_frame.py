"""Frames: round trips, and damage of every byte, cut and bomb is detected or changes nothing."""

from __future__ import annotations

import random
import resource
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from spraydry.errors import CorruptData, DictionaryMissing, FrameCorrupt, SprayDryError, UsageError
from spraydry.format import frame
from spraydry.format.digest import digest
from spraydry.format.frame import RAW, ZSTD, Dictionary, Encoded, decode, encode, header
from tests.format.samples import mutations

OUTER = 36  # bytes of the outer header
TEXT = [
    b"".join(b"def function_%d(argument):\n    return argument + %d\n" % (n, n) for n in range(at, at + 8))
    for at in (0, 8, 16)
]


def trained() -> bytes:
    rng = random.Random(1)
    words = [rng.randbytes(rng.randrange(3, 9)).hex().encode() for _ in range(200)]
    return zstandard.train_dictionary(4096, [b" ".join(rng.choices(words, k=60)) for _ in range(300)]).as_bytes()


DICTIONARY = Dictionary.of(trained())


def nothing(name: bytes) -> Dictionary:
    raise DictionaryMissing(f"dictionary {name.hex()} is gone")


def find(name: bytes) -> Dictionary:
    return DICTIONARY if name == DICTIONARY.digest else nothing(name)


def pieces(plain: bytes, lengths: Sequence[int]) -> list[bytes]:
    return [plain[at : at + length] for at, length in zip(accumulate(lengths, initial=0), lengths, strict=False)]


def forge(encoded: bytes, lengths: Sequence[int], codec: int = ZSTD, references: object = (), **changed: int) -> bytes:
    """A frame whose headers are well-formed, around any encoded bytes."""
    inner = msgspec.msgpack.encode(("other", 3, lengths, references))
    fields = {"format": 1, "flags": 0, "zero": 0, "stated": len(encoded), "inner": len(inner), "key": 0} | changed
    outer = struct.pack(
        "<4sBBBBIII16s",
        b"SDfr",
        fields["format"],
        fields["flags"],
        codec,
        fields["zero"],
        fields["stated"],
        fields["inner"],
        fields["key"],
        bytes(16),
    )
    return outer + inner + encoded


@given(
    st.lists(st.binary(min_size=1, max_size=2000) | st.just(b"text " * 400), min_size=1, max_size=20),
    st.sampled_from((-7, 1, 3, 19, 22)),
    st.booleans(),
)
def test_round_trip(chunks: list[bytes], level: int, with_dictionary: bool) -> None:
    made = encode(chunks, "python", level, DICTIONARY if with_dictionary else None)
    assert made.name == digest(made.stored)
    head, plain = decode(made.stored, find)
    assert head == made.header == header(made.stored)
    assert pieces(plain, head.lengths) == chunks
    assert (head.frame_class, head.level) == ("python", level)
    assert (head.dictionary is not None) == (with_dictionary and head.codec == ZSTD)
    assert decode(bytearray(made.stored), find) == decode(memoryview(made.stored), find) == (head, plain)


def test_names_never_come_back() -> None:
    assert encode([b"same"], "other").name != encode([b"same"], "other").name
    assert encode([b"same"], "other", salt=bytes(16)) == encode([b"same"], "other", salt=bytes(16))


def test_what_does_not_shrink_is_stored_raw() -> None:
    noise = random.Random(1).randbytes(100_000)
    assert encode([noise], "packed").header.codec == RAW
    assert encode([b"x"], "other", 22).header.codec == RAW
    assert encode([bytes(100_000)], "other").header.codec == ZSTD
    # The look at three places must not miss what only its middle would give away.
    assert encode([noise[:40_000] + bytes(60_000)], "other").header.codec == ZSTD


@pytest.mark.parametrize("chunks", [[], [b""], [b"a", b""], [b"a"] * (frame.MAX_CHUNKS + 1), [bytes(4 << 20), b"x"]])
def test_what_could_not_be_read_back_is_not_written(chunks: list[bytes]) -> None:
    with pytest.raises(ValueError, match="no frame can hold"):
        encode(chunks, "other")


def test_the_largest_frames_can_be_read() -> None:
    noise = random.Random(2).randbytes(4 << 20)
    for chunks in ([noise], [bytes(4 << 20)], [noise[at : at + 1024] for at in range(0, 4 << 20, 1024)], [b"x"] * 4096):
        made = encode(chunks, "c" * 32)
        assert len(made.stored) <= frame.MAX_FRAME_BYTES
        assert pieces(decode(made.stored, nothing)[1], made.header.lengths) == chunks


@pytest.mark.parametrize("name", ["", "Python", "a b", "a\n", "x" * 33, "ü", "\x1b[31m"])
def test_classes_are_plain_words(name: str) -> None:
    with pytest.raises(ValueError, match="not a class"):
        encode([b"x"], name)


@pytest.mark.parametrize("level", [-8, 23, 1000, 1 << 40])
def test_levels_zstd_does_not_have(level: int) -> None:
    with pytest.raises(UsageError):
        encode([b"x"], "other", level)


SMALL_FRAMES = [
    encode(TEXT, "python", salt=bytes(16)),
    encode([b"only", b"four", b"words", b"raw"], "other", salt=bytes(16)),
    encode([DICTIONARY.plain[-300:], DICTIONARY.plain[-600:-200]], "json", 3, DICTIONARY, salt=bytes(16)),
]


def read_as_named(stored: bytes, made: Encoded, names: list[bytes]) -> list[bytes] | None:
    """The chunks as a reader gives them: compared with their names; None where damage is noticed."""
    try:
        head, plain = decode(stored, find)
    except SprayDryError:
        return None
    chunks = {digest(chunk): chunk for chunk in pieces(plain, head.lengths)}
    return [chunks[name] for name in names] if all(name in chunks for name in names) else None


@pytest.mark.parametrize("made", SMALL_FRAMES, ids=["zstd", "raw", "dictionary"])
def test_every_flip_of_every_byte_is_detected_or_harmless(made: Encoded) -> None:
    original = pieces(decode(made.stored, find)[1], made.header.lengths)
    names = [digest(chunk) for chunk in original]
    unverified_wrong = 0
    for at in range(len(made.stored)):
        for bit in range(8):
            damaged = bytearray(made.stored)
            damaged[at] ^= 1 << bit
            assert digest(damaged) != made.name
            assert read_as_named(bytes(damaged), made, names) in (None, original)
            try:
                unverified_wrong += decode(bytes(damaged), find)[1] != b"".join(original)
            except CorruptData:
                pass
    assert unverified_wrong > 10, "the control: without the chunks' names wrong bytes would have been served"


@pytest.mark.parametrize("made", SMALL_FRAMES, ids=["zstd", "raw", "dictionary"])
def test_every_cut_and_every_addition_is_detected(made: Encoded) -> None:
    for length in range(len(made.stored)):
        with pytest.raises(FrameCorrupt):
            decode(made.stored[:length], find)
    for more in (b"\0", b"SDfr", made.stored):
        with pytest.raises(FrameCorrupt):
            decode(made.stored + more, find)


@pytest.mark.parametrize("made", SMALL_FRAMES, ids=["zstd", "raw", "dictionary"])
def test_mutations_raise_nothing_else(made: Encoded) -> None:
    for damaged in mutations(made.stored, 5, 4000):
        try:
            decode(damaged, find)
        except (FrameCorrupt, DictionaryMissing):
            pass


BOMB = zstandard.ZstdCompressor(level=19).compress(bytes(256 << 20))
CHECKED = zstandard.ZstdCompressor(write_checksum=True).compress(b"hello")
PLAIN5 = zstandard.ZstdCompressor().compress(b"hello")
UNSIZED = zstandard.ZstdCompressor(write_content_size=False).compress(b"hello")


def zstd_header(content_size: int, window_log: int | None = None) -> bytes:
    """A zstd frame header that claims this much, and no block behind it."""
    if window_log is None:
        return b"\x28\xb5\x2f\xfd" + bytes([0b1110_0000]) + struct.pack("<Q", content_size)
    return b"\x28\xb5\x2f\xfd" + bytes([0b1100_0000, (window_log - 10) << 3]) + struct.pack("<Q", content_size)


HOSTILE = {
    "13 bytes that ask for 7e18": forge(zstd_header(7 * 10**18), [5]),
    "13 bytes that ask for 7e18, claimed": forge(zstd_header(7 * 10**18), [7 * 10**18]),
    "13 bytes, sizes equal": forge(zstd_header(4 << 20), [4 << 20]),
    "8 KB that hold 256 MiB": forge(BOMB, [5]),
    "8 KB that hold 256 MiB, claimed": forge(BOMB, [256 << 20]),
    "8 KB that hold 256 MiB, claimed by chunks": forge(BOMB, [4 << 20] * 64),
    "no size": forge(UNSIZED, [5]),
    "window of 2 GiB": forge(zstd_header(5, 31), [5]),
    "skippable frame": forge(b"\x50\x2a\x4d\x18" + struct.pack("<I", 5) + b"hello", [5]),
    "skippable frame in front": forge(b"\x50\x2a\x4d\x18" + struct.pack("<I", 0) + PLAIN5, [5]),
    "skippable frame behind": forge(PLAIN5 + b"\x50\x2a\x4d\x18" + struct.pack("<I", 0), [5]),
    "two frames": forge(PLAIN5 + PLAIN5, [5]),
    "two frames, claimed": forge(PLAIN5 + PLAIN5, [10]),
    "trailing byte": forge(PLAIN5 + b"\0", [5]),
    "no bytes": forge(b"", [5]),
    "not zstd": forge(b"hello world, hello", [5]),
    "too few chunks": forge(PLAIN5, [4]),
    "too many": forge(PLAIN5, [5, 1]),
    "no chunks": forge(b"", [], RAW),
    "empty chunk": forge(PLAIN5, [5, 0]),
    "negative chunk": forge(PLAIN5, [6, -1]),
    "huge chunk": forge(PLAIN5, [(1 << 64) - 1]),
    "overflowing chunks": forge(b"x" * 5, [(1 << 64) - 1, 6], RAW),
    "a million chunks": forge(b"x" * (1 << 20), [1] * (1 << 20), RAW),
    "raw with a dictionary": forge(b"hello", [5], RAW, [(1, bytes(32))]),
    "raw, short": forge(b"hell", [5], RAW),
    "raw, long": forge(b"hello!", [5], RAW),
    "codec 2": forge(PLAIN5, [5], 2),
    "codec 255": forge(PLAIN5, [5], 255),
    "format 2": forge(PLAIN5, [5], format=2),
    "flags": forge(PLAIN5, [5], flags=1),
    "key": forge(PLAIN5, [5], key=1),
    "reserved byte": forge(PLAIN5, [5], zero=1),
    "encoded length": forge(PLAIN5, [5], stated=(1 << 32) - 1),
    "inner length": forge(PLAIN5, [5], inner=(1 << 32) - 1),
    "inner length zero": forge(PLAIN5, [5], inner=0),
    "reference of kind 2": forge(PLAIN5, [5], ZSTD, [(2, bytes(32))]),
    "two dictionaries": forge(PLAIN5, [5], ZSTD, [(1, DICTIONARY.digest), (1, DICTIONARY.digest)]),
    "short dictionary name": forge(PLAIN5, [5], ZSTD, [(1, b"x")]),
}


@pytest.mark.parametrize("stored", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_frames_are_refused_before_memory_is_taken(stored: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FrameCorrupt):
        decode(stored, find)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def test_the_forger_can_make_good_frames() -> None:
    """The control for the list above."""
    assert decode(forge(PLAIN5, [2, 3]), find)[1] == decode(forge(CHECKED, [5]), find)[1] == b"hello"
    assert decode(forge(b"hello", [5], RAW), find)[1] == b"hello"


def test_inner_headers_have_one_encoding() -> None:
    stored = forge(b"hello", [5], RAW)
    inner = stored[OUTER:-5]
    for changed in (inner, inner.replace(b"\x91\x05", b"\x91\xcc\x05"), inner.replace(b"\x94", b"\xdc\x00\x04")):
        size = struct.pack("<I", len(inner)), struct.pack("<I", len(changed))
        again = stored[:12] + stored[12:16].replace(*size) + stored[16:OUTER] + changed + b"hello"
        if changed == inner:
            assert again == stored and decode(again, find)[1] == b"hello"
        else:
            assert len(changed) > len(inner)
            with pytest.raises(FrameCorrupt, match="not possible"):
                decode(again, find)


def test_dictionary_wrong_missing_or_damaged() -> None:
    made = SMALL_FRAMES[2]
    assert made.header.dictionary == DICTIONARY.digest
    with pytest.raises(DictionaryMissing):
        decode(made.stored, nothing)
    other = Dictionary.of(bytes(DICTIONARY.plain[:-1]) + bytes([DICTIONARY.plain[-1] ^ 1]))
    original = [digest(chunk) for chunk in pieces(decode(made.stored, find)[1], made.header.lengths)]
    try:
        head, plain = decode(made.stored, lambda _: other)
        assert [digest(chunk) for chunk in pieces(plain, head.lengths)] != original or plain == decode(
            made.stored, find
        )[1]
    except FrameCorrupt:
        pass
    with pytest.raises(DictionaryMissing):
        frame.load_dictionary(DICTIONARY.digest, other.plain)
    assert frame.load_dictionary(DICTIONARY.digest, DICTIONARY.plain).plain == DICTIONARY.plain


@pytest.mark.parametrize("plain", [b"", b"abc", b"\x37\xa4\x30\xec", b"\x37\xa4\x30\xec" + b"x" * 500, bytes(1000)])
def test_what_is_no_dictionary_is_refused(plain: bytes) -> None:
    with pytest.raises(FrameCorrupt):
        Dictionary.of(plain)


def test_mutated_dictionaries_raise_nothing_else() -> None:
    made = SMALL_FRAMES[2]
    for damaged in mutations(DICTIONARY.plain, 9, 300):
        try:
            dictionary = Dictionary.of(damaged)
            decode(made.stored, lambda _, found=dictionary: found)
        except CorruptData:
            pass


def test_threads_share_dictionaries() -> None:
    chunks = [[b"%d words and more words " % n * 50] for n in range(200)]

    def there_and_back(chunk: list[bytes]) -> bool:
        made = encode(chunk, "text", 3, DICTIONARY)
        return decode(made.stored, find)[1] == chunk[0]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(there_and_back, chunks))
