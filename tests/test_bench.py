"""scripts/bench runs, offline and without peers, on a tiny tree. No time is looked at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

from benchmark import corpora, system, table, trees  # noqa: E402
from benchmark.measure import Measurement, Options, Outcome  # noqa: E402

PROGRAM = Path(sys.executable).with_name("spraydry")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A few dozen small files, one that is large enough for the readers of the largest, a symlink, a hardlink."""
    top = tmp_path / "tree"
    for number in range(60):
        folder = top / f"folder {number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.txt").write_text(f"line of {number}\n" * (number * 10))
    (top / "large").write_bytes(os.urandom(trees.LARGE_FILE + 12345))
    (top / "link").symlink_to("large")
    os.link(top / "large", top / "again")
    return top


def words(tree: Path, work: Path, *more: str) -> list[str]:
    options = ["--corpus", str(tree), "--work", str(work), "--spraydry", str(PROGRAM)]
    return [sys.executable, str(SCRIPTS / "bench"), *options, "--peers", "none", "--warm-only", "--settle", "0", *more]


def need_fuse() -> None:
    if not system.fuse_opens():
        pytest.skip("NO /dev/fuse that can be opened, so scripts/bench is not tested here")


@pytest.mark.fuse
def test_whole_run(tree: Path, tmp_path: Path) -> None:
    need_fuse()
    work, as_json, as_markdown = tmp_path / "work", tmp_path / "result.json", tmp_path / "result.md"
    outputs = ["--json", str(as_json), "--markdown", str(as_markdown)]
    ran = subprocess.run(
        words(tree, work, "--repeat", "2", *outputs), capture_output=True, text=True, check=False, timeout=300
    )
    assert ran.returncode == 0, ran.stderr + (work / "log").read_text(errors="replace")

    result = json.loads(as_json.read_text())
    assert result["remarks"] == ["Nothing was measured cold: --warm-only."]
    measured = result["corpora"]["tree"]
    assert measured["files"] == 62
    assert measured["entries"] == 62 + 7 + 1 + 1  # folders, the symlink, the root
    peer = measured["peers"]["spraydry"]
    assert peer["errors"] == []
    assert all(value >= 0 for value in peer["values"].values())
    expected = {metric.key for metric in table.METRICS if ".cold." not in metric.key}
    assert expected <= peer["values"].keys()
    assert all(len(peer["samples"][key]) == 2 for key in ("ingest.first.s", "ingest.changed.s", "find.warm.rate"))
    reached = {goal["goal"]: goal["reached"] for goal in measured["goals"]}
    assert len(reached) == len(table.GOALS)
    assert reached["first ingest at least as fast as restic"] is None  # restic was not asked

    for text in (ran.stdout, as_markdown.read_text()):
        assert "tree: 62 files" in text
        assert "find -ls warm, entries/s" in text
        assert "not measured: stored bytes below borg's" in text
    assert not (work / "run").exists()
    assert system.mounts_below(str(work)) == []


def end_while_mounted(command: list[str], work: Path, number: signal.Signals) -> tuple[int, str]:
    """Start, wait until something is mounted, send a signal: how it ended and what it printed."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        deadline = time.monotonic() + 200
        while not system.mounts_below(str(work)):
            assert process.poll() is None, "ended before anything was seen mounted"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(number)
        output, _ = process.communicate(timeout=120)
    return process.returncode, output


@pytest.mark.fuse
def test_an_interrupted_run_leaves_nothing(tree: Path, tmp_path: Path) -> None:
    need_fuse()
    work = tmp_path / "work"
    code, output = end_while_mounted(words(tree, work, "--repeat", "1"), work, signal.SIGTERM)
    assert code == 1
    assert "Interrupted" in output
    assert "ingest first, MB/s" in output  # what was measured until then
    assert not (work / "run").exists()
    assert system.mounts_below(str(work)) == []


@pytest.mark.fuse
def test_what_a_killed_run_left_goes_with_the_next(tree: Path, tmp_path: Path) -> None:
    need_fuse()
    work = tmp_path / "work"
    command = words(tree, work, "--repeat", "1", "--phases", "find,tar")
    try:
        code, _ = end_while_mounted(command, work, signal.SIGKILL)
        assert code == -signal.SIGKILL
        assert system.mounts_below(str(work)) != []
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert ran.returncode == 0, ran.stderr
    finally:
        left = system.mounts_below(str(work))
        for point in left:
            system.unmount(point)
    assert left == []
    assert not (work / "run").exists()


def test_wrong_arguments_are_told(tmp_path: Path) -> None:
    for more, said in (
        (["--corpus", str(tmp_path / "none")], "not a folder"),
        (["--peers", "bork"], "not known: bork"),
        (["--phases", "find,grep"], "not known: grep"),
        (["--corpora", "src"], "not known: src"),
    ):
        command = [sys.executable, str(SCRIPTS / "bench"), "--work", str(tmp_path / "work"), *more]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.returncode == 2
        assert said in ran.stderr
    assert not (tmp_path / "work").exists()


def test_the_live_tree_becomes_v2_and_v1_again(tree: Path, tmp_path: Path) -> None:
    edited = tmp_path / "edited"
    corpora.edited_copy(str(tree), str(edited), seed=3, share=0.5)
    (edited / "new folder" / "inner").mkdir(parents=True)
    (edited / "new folder" / "inner" / "file").write_text("new")
    (edited / "link").unlink()
    (edited / "link").symlink_to("elsewhere")
    live = trees.LiveTree(str(tmp_path / "live"), str(tree), str(edited))
    v1, v2 = trees.entries_of(str(tree)), trees.entries_of(str(edited))
    same = [name for name in v1.keys() & v2.keys() if v1[name] == v2[name] and os.path.isfile(tree / name)]
    assert len(same) > 10 and v1 != v2
    inodes = {name: os.stat(tmp_path / "live" / name).st_ino for name in same}
    for version, entries, source in (("v2", v2, edited), ("v1", v1, tree), ("v2", v2, edited)):
        live.show(version)
        assert trees.entries_of(live.path) == entries
        compared = subprocess.run(["diff", "-r", "--no-dereference", source, live.path], capture_output=True)
        assert compared.returncode == 0, compared.stdout
        assert {name: os.stat(tmp_path / "live" / name).st_ino for name in same} == inodes


@pytest.mark.parametrize("name", ["json-small", "big"])
def test_corpora_made_here_are_the_same_every_time(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that need no download. The parts of big are stood in for."""
    monkeypatch.setattr(corpora, "BIG_PARTS", {"json-small": 100})
    monkeypatch.setattr(corpora, "BIG_BYTES", 150 << 20)
    built = [corpora.Builder(str(tmp_path / folder), 0.002).get(name) for folder in ("one", "two")]
    for version in ("v1", "v2"):
        entries = [trees.entries_of(getattr(corpus, version)) for corpus in built]
        assert entries[0] == entries[1] != {}
        compared = subprocess.run(["diff", "-r", *(getattr(corpus, version) for corpus in built)], capture_output=True)
        assert compared.returncode == 0, compared.stdout
    assert trees.entries_of(built[0].v1) != trees.entries_of(built[0].v2)


def test_verdicts(tree: Path, tmp_path: Path) -> None:
    options = Options(str(tmp_path), 1, 1.0, 1.0, 0.0, (), False, frozenset())
    with open(os.devnull, "wb") as log:
        measured = Measurement(corpora.Corpus("src-versions", str(tree), str(tree)), [], options, log)
    mine, borg, restic = Outcome(), Outcome(), Outcome()
    measured.outcomes = {"spraydry": mine, "borg": borg, "restic": restic}
    for value in (90.0, 100.0, 5000.0):
        mine.add("ingest.first.rate", value)  # the median counts
    restic.add("ingest.first.rate", 100.0)
    mine.add("ingest.unchanged.s", 2.0)
    restic.add("ingest.unchanged.s", 3.9)
    for outcome, cold, warm in ((mine, 60.0, 100.0), (borg, 20.0, 40.0)):
        outcome.add("find.cold.rate", cold)
        outcome.add("find.warm.rate", warm)
        outcome.add("tar.cold.rate", cold, "cut")
    for value in (299.0, 301.0, 100.0):
        mine.add("ingest.peak", value)  # the most counts
    lines = [verdict.line() for verdict in table.verdicts(measured)]
    assert lines == [
        "reached: first ingest at least as fast as restic (1.00x)",
        "NOT REACHED: unchanged ingest twice as fast as restic's (1.95x)",
        "not measured: stored bytes below borg's",
        "NOT REACHED: find on the mount 3 times borg mount's (cold 3.00x, warm 2.50x)",
        "reached: tar on the mount 3 times borg mount's (cold 3.00x)",
        "NOT REACHED: ingest within 300 MB of memory (301 MB)",
        "not measured: mount within 150 MB of memory",
    ]
    report = table.report({}, [], [measured], as_markdown=True)
    assert "| tar cold, MB/s | 60.0~ | 20.0~ (3.0x) | - |" in report
