"""Segments whose files were damaged, cut short or lost: errors or the same values, nothing lost but what was hit."""

from __future__ import annotations

from pathlib import Path

import pytest

from spraydry.errors import CorruptData, SprayDryError
from spraydry.segments.segments import Segments
from tests.segments.folders import files_of, fill, key, put_back, read_all

both = pytest.mark.parametrize("sealed", [False, True], ids=["open", "sealed"])


@both
def test_lost_indexes(tmp_path: Path, sealed: bool) -> None:
    """Each of them, and all of them; whoever may write makes them again."""
    expected = fill(tmp_path, sealed=sealed)
    files = files_of(tmp_path)
    derived = [name for name in files if not name.endswith(".data") and name != "segments"]
    assert len(derived) >= (5 if sealed else 1)
    for lost in [[name] for name in derived] + [derived]:
        for read_only in (True, False, True):
            if read_only:
                for name in lost:
                    (tmp_path / name).unlink(missing_ok=True)
            assert read_all(tmp_path, read_only=read_only) == (expected, set())
        put_back(tmp_path, files)


@pytest.mark.slow
@both
def test_indexes_cut_short(tmp_path: Path, sealed: bool) -> None:
    expected = fill(tmp_path, sealed=sealed)
    files = files_of(tmp_path)
    for name in [name for name in files if not name.endswith(".data") and name != "segments"]:
        for length in range(len(files[name])):
            (tmp_path / name).write_bytes(files[name][:length])
            assert read_all(tmp_path, read_only=length % 37 != 0) == (expected, set()), (name, length)
            put_back(tmp_path, files)


@pytest.mark.slow
@both
def test_indexes_with_a_changed_byte(tmp_path: Path, sealed: bool) -> None:
    expected = fill(tmp_path, sealed=sealed)
    files = files_of(tmp_path)
    for name in [name for name in files if not name.endswith(".data") and name != "segments"]:
        for at in range(len(files[name])):
            changed = bytearray(files[name])
            changed[at] ^= 1 << at % 8
            (tmp_path / name).write_bytes(changed)
            assert read_all(tmp_path, read_only=at % 37 != 0) == (expected, set()), (name, at)
            put_back(tmp_path, files)


@pytest.mark.slow
@both
@pytest.mark.parametrize("indexed", [True, False])
def test_data_with_a_changed_byte(tmp_path: Path, sealed: bool, indexed: bool) -> None:
    """At most one value is lost, and with indexes it is not even forgotten. What was replaced or deleted may come back
    only where the record that said so was hit and no index is left."""
    expected = fill(tmp_path, sealed=sealed)
    files = files_of(tmp_path)
    if not indexed:
        files = {name: content for name, content in files.items() if name.endswith(".data") or name == "segments"}
        put_back(tmp_path, files)
    old = {key(1): b"value 1 value 1 ", key(2): b"value 2 " * 3, key(3): b"value 3 " * 4, key(5): b"value 5 " * 6}
    noticed = 0
    for name in [name for name in files if name.endswith(".data")]:
        for at in range(len(files[name])):
            changed = bytearray(files[name])
            changed[at] ^= 1 << at % 8
            (tmp_path / name).write_bytes(changed)
            values, damaged = read_all(tmp_path, read_only=at % 37 != 0)
            wrong = {key for key in {*values, *expected} if values.get(key) != expected.get(key)}
            noticed += bool(wrong)
            if indexed:
                assert wrong == damaged and len(wrong) <= 1, (name, at)
            else:
                # An append that is not whole at the end counts as never made: of the move's two records, too.
                assert len(wrong) <= (2 if key("moved") in wrong else 1), (name, at, wrong)
                assert all(values[key] == old[key] for key in wrong if key in values), (name, at, wrong)
            put_back(tmp_path, files)
    assert noticed > 200


@both
def test_data_cut_short(tmp_path: Path, sealed: bool) -> None:
    """With and without its index; afterwards the segments take values as before."""
    expected = fill(tmp_path, sealed=sealed)
    files = files_of(tmp_path)
    newest = max(name for name in files if name.endswith(".data"))
    for length in range(len(files[newest])):
        for lose_index in (False, True):
            (tmp_path / newest).write_bytes(files[newest][:length])
            if lose_index:
                (tmp_path / newest).with_suffix(".index").unlink()
            try:
                values, _damaged = read_all(tmp_path, read_only=bool(length % 2))
            except CorruptData:
                assert (length < 32 and not lose_index) or length < 100, length
            else:
                assert all(
                    value in (expected.get(name), b"value 1 value 1 ") or name in (key(2), key(3), key(5))
                    for name, value in values.items()
                )
                segments = Segments(str(tmp_path))
                segments.put((key("new"), b"new"))
                segments.close()
                assert read_all(tmp_path)[0] == values | {key("new"): b"new"}
            put_back(tmp_path, files)


def test_head_with_a_changed_byte(tmp_path: Path) -> None:
    expected = fill(tmp_path, sealed=False)
    files = files_of(tmp_path)
    for at in range(len(files["segments"])):
        changed = bytearray(files["segments"])
        changed[at] ^= 1 << at % 8
        (tmp_path / "segments").write_bytes(changed)
        try:
            assert read_all(tmp_path, read_only=bool(at % 2)) == (expected, set())
        except SprayDryError as error:
            assert "\n" not in str(error) and at < 28
        put_back(tmp_path, files)
    (tmp_path / "segments").unlink()  # as the error says
    Segments(str(tmp_path), create=True).close()
    assert read_all(tmp_path) == (expected, set())


def test_an_index_damaged_while_in_use(tmp_path: Path) -> None:
    """What is found out only when a row is read: the index is made again under whoever reads."""
    expected = fill(tmp_path, sealed=True)
    for read_only in (True, False):
        segments = Segments(str(tmp_path), read_only=read_only)
        for path in tmp_path.glob("*.merged"):
            with path.open("r+b") as file:
                file.seek(64 + 10)
                file.write(b"\xff" * 60)
        assert {name: segments.get(name) for name in expected} == expected
        assert dict(segments.rows(b"")).keys() == expected.keys()
        segments.close()


def test_lost_data(tmp_path: Path) -> None:
    """A segment that is missing takes nothing else along, and is not taken for one that was dropped."""
    expected = fill(tmp_path, sealed=True)
    (tmp_path / "00000002.data").unlink()
    values, damaged = read_all(tmp_path)
    assert damaged and values == {name: value for name, value in expected.items() if name not in damaged}


def test_values_that_look_like_segments(tmp_path: Path) -> None:
    """A value that holds records is not taken for them when the data are scanned."""
    fill(tmp_path / "inner", sealed=False)
    inner = (tmp_path / "inner" / "00000001.data").read_bytes()
    segments = Segments(str(tmp_path / "outer"), create=True)
    segments.put((key("a"), inner), (key("b"), b"x"))
    segments.close()
    data = tmp_path / "outer" / "00000001.data"
    changed = bytearray(data.read_bytes())
    changed[32 + 20] ^= 1  # the length of the first record: the search goes through the value
    data.write_bytes(changed)
    (tmp_path / "outer" / "00000001.index").unlink()
    assert read_all(tmp_path / "outer") == ({key("b"): b"x"}, set())
