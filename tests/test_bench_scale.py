"""scripts/bench-scale runs on tiny trees, its streams are tar, and its goals are judged. No time is looked at."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import pytest

from tests.bench_runs import interrupt

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

from benchmark import scaletable, streams, system  # noqa: E402
from benchmark.measure import CUT, Outcome  # noqa: E402
from benchmark.scale import Piece, Tree  # noqa: E402

PROGRAM = Path(sys.executable).with_name("spraydry")


def words(work: Path, *more: str) -> list[str]:
    options = ["--work", str(work), "--spraydry", str(PROGRAM), "--repeat", "1", "--engines", "fuse", "--warm-only"]
    return [sys.executable, str(SCRIPTS / "bench-scale"), *options, *more]


def stream(kind: str, first: int, count: int) -> list[tuple[tarfile.TarInfo, bytes]]:
    command = [sys.executable, streams.__file__, kind, str(first), str(count)]
    ran = subprocess.run(command, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(ran.stdout), mode="r:") as archive:
        found = [(member, file.read() if (file := archive.extractfile(member)) else b"") for member in archive]
    assert int(ran.stderr) == len(found)
    return found


@pytest.mark.parametrize("kind", ["tree", "flat"])
def test_streams_are_trees_of_different_files(kind: str) -> None:
    found = stream(kind, 0, 2000)
    folders = [member.name for member, _ in found if member.isdir()]
    files = [(member.name, content) for member, content in found if member.isreg()]
    assert [name for name, _ in files] == [streams.PATHS[kind](number) for number in range(2000)]
    assert len({content for _, content in files}) == len(set(dict(files))) == 2000
    assert {os.path.dirname(name) for name, _ in files} <= set(folders)
    assert len(set(folders)) == len(folders)
    if kind == "flat":
        assert folders == ["all"]
        assert [name for name, _ in files] != sorted(name for name, _ in files)
    else:
        assert 60 < len(folders) < 200


def test_pieces_of_growth_have_nothing_in_common() -> None:
    one, two = (stream("blocks", first, 3) for first in (0, 3))
    contents = [content for member, content in [*one, *two] if member.isreg()]
    assert [len(content) for content in contents] == [streams.BLOCK] * 6
    pages = [content[at : at + 4096] for content in contents for at in range(0, len(content), 4096)]
    assert len(set(pages)) == len(pages)
    assert len(zlib.compress(contents[0])) < 0.6 * streams.BLOCK
    assert {member.name for member, _ in one if member.isreg()}.isdisjoint(member.name for member, _ in two)


@pytest.mark.fuse
def test_whole_run(tmp_path: Path) -> None:
    if not system.fuse_opens():
        pytest.skip("NO /dev/fuse that can be opened, so scripts/bench-scale is not tested here")
    work, as_json, as_markdown = tmp_path / "work", tmp_path / "result.json", tmp_path / "result.md"
    sizes = ["--files", "100,300", "--flat", "200", "--growth", "0.002,0.006", "--piece", "0.002"]
    command = words(work, *sizes, "--json", str(as_json), "--markdown", str(as_markdown))
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr + (work / "log").read_text(errors="replace")
    assert "GB are free" in ran.stderr

    result = json.loads(as_json.read_text())
    assert result["trees"].keys() == {"tree 100", "tree 300", "flat 200"}
    for tree in result["trees"].values():
        expected = {metric.key for metric in scaletable.metrics() if not metric.key.startswith("erofs.")}
        assert tree["samples"].keys() == expected
        assert tree["errors"] == []
    assert [round(piece["inserted"]) for piece in result["growth"]] == [2, 4, 6]
    for text in (ran.stdout, as_markdown.read_text()):
        assert "find -ls, entries/s (fuse)" in text
        assert "insert rate at the end" in text
    assert not (work / "run").exists()
    assert system.mounts_below(str(work)) == []


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    work = tmp_path / "work"
    interrupt(words(work, "--files", "1e6", "--flat", "0", "--growth", "0"), work)


def test_too_little_room_is_said_before_anything_begins(tmp_path: Path) -> None:
    ran = subprocess.run(words(tmp_path, "--files", "1e12"), capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "needs up to 1000000.0 GB" in ran.stderr and "--work" in ran.stderr
    assert os.listdir(tmp_path) == []
    ran = subprocess.run(words(tmp_path, "--engines", "fuse,ext4"), capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "not known: ext4" in ran.stderr


def outcome_of(**values: float) -> Outcome:
    outcome = Outcome()
    for key, number in values.items():
        outcome.add(key.replace("_", "."), number)
    return outcome


def test_goals_of_trees() -> None:
    mounts = {"fuse_mount_ms": 100.0, "erofs_mount_ms": 300.0, "fuse_mount_peak": 90.0, "erofs_mount_peak": 167.0}
    small = outcome_of(ingest_us=80.0, ingest_peak=100.0, **mounts)
    large = outcome_of(ingest_us=100.0, ingest_peak=301.0, **mounts)
    large.add("fuse.find.rate", 5.0, CUT)
    trees = {Tree("tree", 10): small, Tree("tree", 1000): large}
    memory, mounted, daemon, even = scaletable.tree_verdicts(trees)
    assert memory.line() == "NOT REACHED: ingest within 300 MB of memory (tree 10: 100 MB; tree 1,000: 301 MB)"
    assert mounted.reached and daemon.reached
    assert "tree 1,000 erofs: 300 ms" in mounted.measured
    assert even.reached and even.measured == "tree: 1.25 times"
    large.add("ingest.us", 101.0)
    large.add("ingest.us", 101.0)
    assert scaletable.tree_verdicts(trees)[3].reached is False
    del small.samples["erofs.mount.ms"]
    assert scaletable.tree_verdicts(trees)[1].word() == "not all measured"
    assert scaletable.tree_verdicts({Tree("tree", 10): small})[3].word() == "not measured"
    assert ["find -ls, entries/s (fuse)", "-", "5~"] in scaletable.tree_rows(trees)


def test_growth_is_told_where_it_was_asked() -> None:
    pieces = [Piece(1000.0 * number, 1000.0, 10.0 + number, 5.0, 80.0, 500.0 * number, 40.0) for number in range(1, 6)]
    rows = scaletable.growth_rows(pieces, [5000.0, 1000.0, 2000.0])
    assert [row[:3] for row in rows[1:]] == [
        ["1.00", "90.9", "90.9"],
        ["2.00", "83.3", "83.3"],
        ["5.00", "66.7", "71.4"],
    ]
    assert scaletable.growth_verdict(pieces, [1000.0, 4000.0, 5000.0]).line() == (
        "NOT REACHED: insert rate at the end at least 80% of that at the beginning (73%)"
    )
    assert scaletable.growth_verdict(pieces, [1000.0, 5000.0]).reached
    assert scaletable.growth_verdict(pieces[:1], [1000.0, 5000.0]).reached is None
