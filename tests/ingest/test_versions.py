"""Versions and their names, dry runs, chunkers, deduplication, and what the command line says of it."""

from __future__ import annotations

import io
import json
import os
import random
from pathlib import Path

import pytest

from spraydry.actions.ingest import ingest, ingest_tar
from spraydry.errors import UsageError, VersionExists
from spraydry.format.entry import Runs
from spraydry.format.version import RemovalRecord
from spraydry.repository.log import RECORD_FORMAT
from spraydry.repository.repository import Repository
from spraydry.repository.stream import spans
from tests.ingest.trees import age, command, differences, entry_at, fill, read_back, taken, version_of


def source_of(tmp_path: Path, text: str = "one") -> Path:
    (tmp_path / "s").mkdir(exist_ok=True)
    (tmp_path / "s/f").write_text(text)
    return tmp_path / "s"


def remove(repository: Repository, slot: int) -> None:
    repository.log.append(
        lambda previous, now: RemovalRecord(
            format=RECORD_FORMAT, previous=previous, made_ns=now, made_by="t", slot=slot
        )
    )


def test_names_count_up(repository: Repository, tmp_path: Path) -> None:
    for number in range(1, 4):
        assert str(taken(repository, source_of(tmp_path, str(number))).version) == f"r@v{number}"
    assert str(taken(repository, source_of(tmp_path, "named"), name="mine").version) == "r@mine"
    assert str(taken(repository, source_of(tmp_path, "next")).version) == "r@v4"
    assert str(taken(repository, source_of(tmp_path, "far"), name="v10").version) == "r@v10"
    assert str(taken(repository, source_of(tmp_path, "further")).version) == "r@v11"
    assert str(taken(repository, source_of(tmp_path), root="other").version) == "other@v1"


def test_a_name_is_never_used_twice(repository: Repository, tmp_path: Path) -> None:
    first = taken(repository, source_of(tmp_path), name="mine")
    with pytest.raises(VersionExists):
        taken(repository, source_of(tmp_path, "two"), name="mine")
    taken(repository, source_of(tmp_path, "three"))
    remove(repository, version_of(first).slot)
    with pytest.raises(VersionExists, match="removed"):
        taken(repository, source_of(tmp_path, "two"), name="mine")
    remove(repository, repository.log.find("r", "v1").slot)
    assert str(taken(repository, source_of(tmp_path, "four")).version) == "r@v2"
    done = command("--repo", repository.url, "ingest", tmp_path / "s", "--root", "r", "--as", "mine")
    assert done.returncode == 5 and done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("name", ["latest", "-x", ".x", "a b", "", "n" * 201])
def test_names_that_do_not_fit(repository: Repository, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        taken(repository, source_of(tmp_path), name=name)
    assert repository.roots() == []


def test_what_did_not_change_makes_no_version(repository: Repository, tmp_path: Path) -> None:
    first = taken(repository, source_of(tmp_path))
    head = repository.log.head
    again = taken(repository, tmp_path / "s")
    assert (again.new, again.named, again.version) == (False, False, first.version)
    assert repository.log.head == head


def test_a_second_name_for_what_did_not_change(repository: Repository, tmp_path: Path) -> None:
    first = version_of(taken(repository, source_of(tmp_path)))
    age()
    again = taken(repository, tmp_path / "s", name="golden")
    assert (again.new, again.named) == (False, True)
    assert str(again.version) == "r@golden" and version_of(again).record == first.record
    with pytest.raises(VersionExists):
        taken(repository, tmp_path / "s", name="golden")
    assert not taken(repository, tmp_path / "s").new
    assert str(taken(repository, source_of(tmp_path, "two")).version) == "r@v2"
    # What the newest version is no longer equal to is a version of its own.
    assert taken(repository, source_of(tmp_path, "one"), name="back").new


def test_only_attributes_changed(repository: Repository, tmp_path: Path, rng: random.Random) -> None:
    source = source_of(tmp_path)
    (source / "large").write_bytes(rng.randbytes(1 << 20))
    taken(repository, source)
    (source / "large").chmod(0o600)
    result = taken(repository, source)
    assert result.new and result.stored_bytes < 4096
    (source / "large").rename(source / "renamed")
    result = taken(repository, source)
    assert result.new and result.stored_bytes < 4096
    assert differences(repository, version_of(result), source) == []


@pytest.mark.parametrize("there", [False, True])
def test_a_dry_run_changes_nothing(tmp_path: Path, rng: random.Random, there: bool) -> None:
    source, repo, cache = source_of(tmp_path), tmp_path / "r.sqlite", tmp_path / "cache"
    fill(source, rng, 20)
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    if there:
        assert command("--repo", repo, "ingest", source, env=environment).returncode == 0
        (source / "new").write_text("new")
    before = sorted((str(path), path.read_bytes()) for path in (repo, *cache.rglob("*")) if path.is_file())
    done = command("--repo", repo, "ingest", source, "--dry-run", "--json", env=environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["dry_run"] and told["new"] and told["version"] is None and told["new_bytes"] > 0
    after = sorted((str(path), path.read_bytes()) for path in (repo, *cache.rglob("*")) if path.is_file())
    assert after == before
    real = json.loads(command("--repo", repo, "ingest", source, "--json", env=environment).stdout)
    for key in ("files", "bytes", "new_bytes", "deduplicated_bytes", "read_files"):
        assert real[key] == told[key], key


def test_json(tmp_path: Path) -> None:
    source, repo = source_of(tmp_path), tmp_path / "r.sqlite"
    (source / "copy").write_text("one")
    with open(os.fsencode(source) + b"/\xff.tmp", "wb"):
        pass
    done = command("--repo", repo, "ingest", source, "--json", "--exclude", "*.tmp")
    assert done.returncode == 0 and done.stderr == b""
    told = json.loads(done.stdout)
    assert told.pop("seconds") >= 0 and told.pop("stored_bytes") > 0 and told.pop("new_bytes") > 3
    assert told == {
        "root": "s",
        "version": "v1",
        "new": True,
        "files": 2,
        "bytes": 6,
        "unchanged_files": 0,
        "read_files": 2,
        "read_bytes": 6,
        "deduplicated_bytes": 3,
        "problems": [],
        "left_out": [],
        "dry_run": False,
    }
    age()
    command("--repo", repo, "ingest", source, "--json")
    told = json.loads(command("--repo", repo, "ingest", source, "--json").stdout)
    assert (told["new"], told["version"], told["unchanged_files"], told["stored_bytes"]) == (False, "v2", 3, 0)


def test_what_the_command_line_says(tmp_path: Path) -> None:
    source, repo = source_of(tmp_path), tmp_path / "r.sqlite"
    said = [command("--repo", repo, "ingest", source).stdout for _ in range(2)]
    assert said[0].startswith(b"s@v1 is there\n") and said[1].startswith(b"nothing changed since s@v1")
    named = command("--repo", repo, "ingest", source, "--as", "twice").stdout
    assert named.startswith(b"s@twice is there: nothing changed")
    for arguments, code in (
        ([tmp_path / "gone"], 4),
        ([source, "--chunker", "nonsense"], 2),
        ([source, "--level", "99"], 2),
        ([source, "--memory", "12Q"], 2),
        ([source, "--memory", "1M"], 2),
        ([source, "--as", "latest"], 2),
        (["-"], 2),
        ([], 2),
    ):
        done = command("--repo", repo, "ingest", *arguments)
        assert done.returncode == code and done.stderr.count(b"\n") == 1, (arguments, done.stderr)


def test_repositories_are_private(tmp_path: Path) -> None:
    repo, cache = tmp_path / "r.sqlite", tmp_path / "cache"
    command("--repo", repo, "ingest", source_of(tmp_path), env={**os.environ, "XDG_CACHE_HOME": str(cache)})
    files = [repo, *(path for path in cache.rglob("*") if path.is_file())]
    assert len(files) > 1
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o600"}


# -- cutting


def test_the_chunker_stays_with_the_root(repository: Repository, tmp_path: Path, rng: random.Random) -> None:
    source = source_of(tmp_path)
    (source / "large").write_bytes(rng.randbytes(300_000))
    first = taken(repository, source, chunker="fixed:size=64K")
    content = entry_at(repository, first, "large").content
    assert isinstance(content, Runs)
    lengths = [span.length for span in spans(entry_at(repository, first, "large"), repository.read_chunk)]
    assert lengths == [65536] * 4 + [300_000 - 4 * 65536]
    age()
    assert not taken(repository, source).new
    assert version_of(taken(repository, source)).record.spec == "fixed:size=64K"
    other = taken(repository, source, chunker="fastcdc:min=4K,avg=16K,max=64K")
    assert other.new and other.read_files == 2
    assert differences(repository, version_of(other), source) == []
    for wrong in ("fixed:size=5M", "fastcdc:min=16K", "x", "fixed:size=0", "fastcdc:min=16K,avg=64K,max=64M"):
        with pytest.raises(UsageError):
            taken(repository, source, chunker=wrong)


def test_a_manifest_of_several_pages(repository: Repository, tmp_path: Path, rng: random.Random) -> None:
    """More than 1,024 chunks; holes between them; read in windows and in one go."""
    source = source_of(tmp_path)
    for name, size in (("windows", 9 << 20), ("whole", 7 << 20)):
        plain = bytearray(rng.randbytes(size))
        plain[1 << 20 : (1 << 20) + 200_000] = bytes(200_000)
        (source / name).write_bytes(plain)
    result = taken(repository, source, chunker="fastcdc:min=1K,avg=4K,max=16K")
    entry = entry_at(repository, result, "whole")
    assert len(list(spans(entry, repository.read_chunk))) > 1024
    assert differences(repository, version_of(result), source) == []
    (source / "windows").write_bytes(b"in front" + (source / "windows").read_bytes())
    more = taken(repository, source, chunker="fastcdc:min=1K,avg=4K,max=16K")
    assert more.stored_bytes < result.stored_bytes / 20


def test_windows_and_whole_files_are_cut_alike(
    repository: Repository, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How a file is read says nothing about its tree digest, nor whether it came in a tar stream."""
    source = source_of(tmp_path)
    block = 1 << 16
    pieces = [rng.randbytes(3 * block + 5), bytes(5 * block), rng.randbytes(block), bytes(2 * block), bytes(9)]
    for number in range(12):
        rng.shuffle(pieces)
        (source / f"mixed{number}").write_bytes(b"".join(pieces * rng.randrange(1, 4))[: rng.randrange(1, 40 * block)])
    (source / "zeros").write_bytes(bytes(70 * block))
    whole = taken(repository, source, root="whole", chunker="fastcdc:min=1K,avg=4K,max=16K")
    monkeypatch.setattr("spraydry.actions.ingest.content.LARGE_BYTES", 0)
    for window in (block, 4 * block):
        monkeypatch.setattr("spraydry.actions.ingest.content.WINDOW_BYTES", window)
        monkeypatch.setattr("spraydry.actions.ingest.content.ZERO_WINDOW", zeros := bytes(window))
        monkeypatch.setattr("spraydry.actions.ingest.segments.ZERO_WINDOW", zeros)
        windows = taken(repository, source, root=f"w{window}", chunker="fastcdc:min=1K,avg=4K,max=16K")
        assert version_of(windows).record.entry == version_of(whole).record.entry


# -- deduplication


def test_deduplication_across_roots_and_versions(repository: Repository, tmp_path: Path, rng: random.Random) -> None:
    plain = rng.randbytes(600_000)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a/one").write_bytes(plain)
    (tmp_path / "a/two").write_bytes(plain)
    first = taken(repository, tmp_path / "a", root="a")
    assert 600_000 < first.new_bytes < 610_000 and first.deduplicated_bytes >= 600_000
    (tmp_path / "b/inserted").write_bytes(plain[:100_000] + b"some bytes more" + plain[100_000:])
    (tmp_path / "b/whole").write_bytes(plain)
    second = taken(repository, tmp_path / "b", root="b")
    assert second.new_bytes < 300_000 and second.deduplicated_bytes > 900_000
    (tmp_path / "a/two").unlink()
    third = taken(repository, tmp_path / "a", root="a")
    assert third.new and third.stored_bytes < 2000
    for root, version in (("a", third), ("b", second)):
        assert differences(repository, version_of(version), tmp_path / root) == []
    frames = list(repository.store.list("frames"))
    assert sum(stored.size for stored in frames) == first.stored_bytes + second.stored_bytes + third.stored_bytes


def test_incompressible_bytes_are_stored_as_they_are(
    repository: Repository, tmp_path: Path, rng: random.Random
) -> None:
    source = source_of(tmp_path)
    (source / "f").write_bytes(rng.randbytes(2 << 20))
    result = taken(repository, source)
    assert result.stored_bytes < (2 << 20) + 4096


@pytest.mark.parametrize("level", [-7, 1, 19])
def test_levels(repository: Repository, tmp_path: Path, rng: random.Random, level: int) -> None:
    fill(tmp_path / "s", rng, 20)
    result = taken(repository, tmp_path / "s", level=level)
    assert differences(repository, version_of(result), tmp_path / "s") == []


def test_in_memory(tmp_path: Path, rng: random.Random) -> None:
    fill(tmp_path / "s", rng, 50)
    with Repository.open("memory:", create=True) as repository:
        first = taken(repository, tmp_path / "s")
        assert differences(repository, version_of(first), tmp_path / "s") == []
        assert not taken(repository, tmp_path / "s").new


def test_another_process_sees_it_at_once(repository: Repository, tmp_path: Path) -> None:
    with Repository.open(repository.url, read_only=True) as reader:
        taken(repository, source_of(tmp_path))
        reader.refresh()
        assert read_back(reader, reader.log.find("r"), "f") == b"one"


def test_a_stream_can_be_put(repository: Repository) -> None:
    with pytest.raises(UsageError, match="no tar stream"):
        ingest_tar(repository, io.BytesIO(b"not a tar stream" * 100), root="r")
    with pytest.raises(UsageError):
        ingest(repository, [], root="r")
