"""scripts/bench runs, offline and without peers, on a tiny tree. No time is looked at."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

from benchmark import corpora, goals, metrics, peers, system, table, trees  # noqa: E402
from benchmark.measure import CUT, Measurement, Options, Outcome  # noqa: E402

PROGRAM = Path(sys.executable).with_name("spraydry")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A few dozen small files, one that is large enough for the readers of the largest, a symlink, a hardlink."""
    top = tmp_path / "tree"
    for number in range(60):
        folder = top / f"folder {number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.txt").write_text(f"line of {number}\n" * (number * 10))
    (top / "large").write_bytes(random.randbytes(trees.LARGE_FILE + 12345))
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
        words(tree, work, "--repeat", "2", *outputs), capture_output=True, text=True, check=False, timeout=600
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
    expected = {metric.key for metric in metrics.METRICS if ".cold." not in metric.key}
    assert expected <= peer["values"].keys()
    assert all(len(peer["samples"][key]) == 2 for key in ("ingest.first.s", "ingest.changed.s", "find.warm.rate"))
    reached = {goal["goal"]: goal["reached"] for goal in measured["goals"]}
    assert len(reached) == len([goal for goal in goals.GOALS if "big" not in goal.corpora])
    assert reached["unchanged ingest 4 times as fast as restic's and borg's"] is None  # they were not asked

    for text in (ran.stdout, as_markdown.read_text()):
        assert "tree: 62 files" in text
        assert "find -ls warm, entries/s" in text
        assert "stored bytes below half of squashfs's" in text
        assert "not measured" in text
    assert not (work / "run").exists()
    assert system.mounts_below(str(work)) == []


def end_while_mounted(command: list[str], work: Path, number: signal.Signals) -> tuple[int, str]:
    """Start, wait until something is mounted that nobody is about to unmount, send a signal: how it ended and what it
    printed."""
    deadline = time.monotonic() + 300

    def wait_while(happening: Callable[[], object]) -> None:
        while happening():
            assert process.poll() is None, "ended before anything was seen mounted"
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def programs_run() -> bool:
        """Whether something that it started (find, umount, ...) has not ended yet, but for what serves the mount."""
        for pid in system.descendants(process.pid):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if pid != process.pid and words != [b""] and b"mount" not in words:  # who has ended has no words
                return True
        return False

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        while True:
            wait_while(lambda: not system.mounts_below(str(work)))
            process.send_signal(signal.SIGSTOP)
            wait_while(programs_run)
            if system.mounts_below(str(work)):
                break
            process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        output, _ = process.communicate(timeout=600)
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
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
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


def outcomes_of(**values: dict[str, float]) -> dict[str, Outcome]:
    """Made-up numbers of peers; in their names _ stands for -, in those of metrics for a dot."""
    outcomes = {}
    for peer, numbers in values.items():
        outcome = outcomes[peer.replace("_", "-")] = Outcome()
        for key, number in numbers.items():
            outcome.add(key.replace("_", "."), number)
    return outcomes


def judged(words: str, **values: dict[str, float]) -> str:
    """The verdict on the one goal with these words in its text, without the text."""
    (goal,) = [goal for goal in goals.GOALS if words in goal.text]
    verdict = goals.judge(goal, outcomes_of(**values))
    assert verdict.goal == goal.text
    return f"{verdict.word()}: {verdict.measured}"


def rate(number: float, *more: str) -> dict[str, float]:
    return dict.fromkeys(("find_cold_rate", "tar_cold_rate", "open_cold_rate", "seq_cold_rate", *more), number)


def test_every_peer_of_a_goal_must_be_beaten() -> None:
    said = "unchanged ingest"
    fast, slow = {"ingest_unchanged_s": 4.0}, {"ingest_unchanged_s": 3.9}
    mine = {"ingest_unchanged_s": 1.0}
    assert judged(said, spraydry=mine, restic=fast, borg=fast) == "reached: 4.00x restic, 4.00x borg"
    assert judged(said, spraydry=mine, restic=fast, borg=slow) == "NOT REACHED: 4.00x restic, 3.90x borg"
    assert judged(said, spraydry=mine, borg=slow) == "NOT REACHED: - restic, 3.90x borg"
    assert judged(said, spraydry=mine, borg=fast) == "not all measured: - restic, 4.00x borg"
    assert judged(said, restic=fast, borg=fast) == "not measured: - restic, - borg"


def test_ratios_say_how_many_times_better() -> None:
    assert judged("first ingest", spraydry={"ingest_first_rate": 99}, squashfs={"ingest_first_rate": 100}) == (
        "NOT REACHED: 0.99x squashfs"
    )
    assert judged("stored bytes", spraydry={"stored_allocated": 50}, squashfs={"stored_allocated": 101}) == (
        "reached: 2.02x squashfs"
    )
    assert judged("random 4 KiB", **{"spraydry": {"rand_cold_p99": 4.0}, "squashfuse": {"rand_cold_p99": 2.0}}) == (
        "not all measured: spraydry 0.50x squashfuse; spraydry-erofs - squashfuse"
    )


def test_each_engine_has_goals_of_its_own() -> None:
    kernel = {"squashfs": rate(100), "erofs": rate(200)}
    for what in ("find", "tar", "open"):
        said = f"engine erofs: cold {what}"
        assert judged(said, spraydry=rate(1), spraydry_erofs=rate(200), **kernel) == (
            "reached: 2.00x squashfs, 1.00x erofs"
        )
        assert judged(said, spraydry=rate(999), spraydry_erofs=rate(199), **kernel).startswith("NOT REACHED")
        assert judged(said, spraydry=rate(999), **kernel).startswith("not measured")
    mounts = {"squashfuse": rate(50), "borg": rate(20), "restic": rate(20)}
    for what in ("find", "tar"):
        said = f"engine fuse: cold {what}"
        assert judged(said, spraydry=rate(100), spraydry_erofs=rate(1), **mounts) == (
            "reached: 2.00x squashfuse, 5.00x borg, 5.00x restic"
        )
        assert judged(said, spraydry=rate(99), spraydry_erofs=rate(999), **mounts).startswith("NOT REACHED")


def test_a_limit_or_peers() -> None:
    """Where both are given one is enough; for memory and times less is better."""
    said = "large file, sequential"
    both = {"spraydry": rate(500), "spraydry_erofs": rate(400)}
    assert judged(said, **both, squashfs=rate(500)) == (
        "reached: spraydry 500 MB/s, 1.00x squashfs; spraydry-erofs 400 MB/s, 0.80x squashfs"
    )
    assert judged(said, **both, squashfs=rate(501)).startswith("NOT REACHED")
    assert judged(said, **both).startswith("not all measured")
    said, keys = "mount to first ls", ("mount_ms",)
    assert judged(said, spraydry=rate(1) | dict.fromkeys(keys, 301.0)) == (
        "NOT REACHED: spraydry 301 ms; spraydry-erofs -"
    )
    assert judged(said, spraydry={"mount_ms": 300}, spraydry_erofs={"mount_ms": 20}).startswith("reached")


def test_all_metrics_of_a_goal_must_reach_it() -> None:
    mine = {"added_allocated": 19.0, "added_apparent": 18.0}
    assert judged("bytes that v2 adds", spraydry=mine, casync=mine) == (
        "reached: allocated 1.00x casync; apparent 1.00x casync"
    )
    smaller = mine | {"added_apparent": 17.0}
    assert judged("bytes that v2 adds", spraydry=mine, casync=smaller).startswith("NOT REACHED: allocated 1.00x")
    warm = {"find_warm_rate": 6.0, "tar_warm_rate": 6.0}
    assert judged("warm find and tar", spraydry=warm, borg={"find_warm_rate": 2.0, "tar_warm_rate": 2.1}) == (
        "NOT REACHED: find 3.00x borg; tar 2.86x borg"
    )


def test_the_median_counts_and_of_memory_the_most_and_what_was_cut_is_marked() -> None:
    outcomes = outcomes_of(spraydry={}, borg={}, restic={}, squashfuse={})
    for number in (90.0, 100.0, 5000.0):
        outcomes["spraydry"].add("tar.cold.rate", number)
    for number in (299.0, 301.0, 100.0):
        outcomes["spraydry"].add("ingest.peak", number)
    for peer in ("squashfuse", "borg", "restic"):
        outcomes[peer].add("tar.cold.rate", 10.0, CUT if peer == "borg" else None)
    lines = [goals.judge(goal, outcomes).line() for goal in goals.GOALS]
    assert (
        "reached: engine fuse: cold tar 2 x squashfuse, 5 x borg and restic mount (10.00x squashfuse, 10.00x~ borg, "
        in ("\n".join(lines))
    )
    assert "NOT REACHED: ingest within 300 MB of memory (301 MB)" in lines


def test_goals_belong_to_corpora() -> None:
    def names(name: str, own: bool = False) -> set[str]:
        corpus = corpora.Corpus(name, "", "", own)
        return {goal.text.split(",")[0] for goal in goals.GOALS if goals.applies(goal, corpus)}

    everywhere = names("photos")
    assert "mount to first ls below 300 ms" in everywhere
    assert not any("squashfs" in text or "casync" in text for text in everywhere)
    assert names("big") - everywhere == {
        "bytes that v2 adds at most casync's with chunks of 64 KiB",
        "large file",
    }
    assert "stored bytes below half of squashfs's" in names("src-versions")
    assert names("src-versions") == names("src-versions", own=True) == names("a folder", own=True)
    assert names("big") == names("big", own=True)


def test_reports(tree: Path, tmp_path: Path) -> None:
    options = Options(str(tmp_path), 1, 1.0, 1.0, 0.0, (), False, frozenset())
    with open(os.devnull, "wb") as log:
        measured = Measurement(corpora.Corpus("src-versions", str(tree), str(tree)), [], options, log)
    measured.outcomes = outcomes_of(spraydry={"find_cold_rate": 60.0}, borg={"find_cold_rate": 20.0}, restic={})
    measured.outcomes["spraydry"].add("tar.cold.rate", 60.0, CUT)
    head = {"machine": {"CPU": "made of wood"}, "peers": {"borg": "0.1: borg create"}}
    as_markdown = table.report(head, ["A remark."], [measured], as_markdown=True)
    assert "- machine: CPU made of wood\n- borg 0.1: borg create\n" in as_markdown
    assert "- A remark.\n" in as_markdown
    assert "\n### src-versions: 62 files" in as_markdown
    assert "| find -ls cold, entries/s | 60 | 20 (3.0x) | - |" in as_markdown
    assert "| tar cold, MB/s | 60.0~ | - | - |" in as_markdown
    assert "| engine fuse: cold find 2 x squashfuse, 5 x borg and restic mount | " in as_markdown
    assert "- squashfuse, 3.00x borg, - restic | NOT REACHED |" in as_markdown
    as_text = table.report(head, ["A remark."], [measured], as_markdown=False)
    assert "  not measured: stored bytes below half of squashfs's (- squashfs)\n" in as_text
    assert "#" not in as_text and "|" not in as_text


def test_the_engine_that_is_refused_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a program that ingests, and mounts nothing."""
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\ncase "$3" in mount) echo one; echo "no engine called $6" >&2; exit 2;; esac\n')
    program.chmod(0o755)
    monkeypatch.setattr(peers.Spraydry, "program", str(program))
    monkeypatch.setattr(system, "is_root", lambda: True)
    with open(tmp_path / "log", "wb") as log:
        peer = peers.SpraydryErofs(str(tmp_path / "run"), log)
        assert peer.cannot_mount() == "mount ended with 2: no engine called erofs"
        assert not os.path.exists(peer.store)
        monkeypatch.setattr(system, "is_root", lambda: False)
        assert peer.cannot_mount() == "kernel mounts need root"


def test_both_engines_read_one_store(tmp_path: Path) -> None:
    with open(os.devnull, "wb") as log:
        fuse, erofs = (kind(str(tmp_path), log) for kind in (peers.Spraydry, peers.SpraydryErofs))
    assert fuse.store == erofs.store and fuse.point != erofs.point
    assert fuse.environment() == erofs.environment()
    assert "--engine fuse" in " ".join(fuse.mount_command("v1"))
    assert "--engine erofs" in " ".join(erofs.mount_command("v1"))
