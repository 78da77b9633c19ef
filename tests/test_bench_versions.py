"""scripts/bench-versions runs on next to nothing, and its goals are judged. No time is looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

from benchmark import phases, versions  # noqa: E402
from benchmark.phase import Row  # noqa: E402

PROGRAM = Path(sys.executable).with_name("spraydry")


def run(work: Path, *more: str) -> subprocess.CompletedProcess[str]:
    options = ["--work", str(work), "--spraydry", str(PROGRAM), "--repeat", "2", "--scale", "0.0001"]
    command = [sys.executable, str(SCRIPTS / "bench-versions"), *options, *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def test_diff(tmp_path: Path) -> None:
    as_json, as_markdown = tmp_path / "result.json", tmp_path / "result.md"
    ran = run(tmp_path / "work", "--phases", "diff", "--json", str(as_json), "--markdown", str(as_markdown))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = json.loads(as_json.read_text())
    rows = told["phases"]["diff"]["rows"]
    assert len(rows) == 9 and all(len(row["samples"]) == 2 and min(row["samples"]) > 0 for row in rows)
    assert len(told["phases"]["diff"]["goals"]) == 2
    assert "no verdict counts" in as_markdown.read_text() and "| must reach |" in as_markdown.read_text()
    assert not (tmp_path / "work" / "run").exists()


def test_push(tmp_path: Path) -> None:
    corpus = tmp_path / "work" / "corpora" / "scale-0.0001" / "src-versions"
    for number, release in enumerate(("4.2", "4.10", "5.0")):
        folder = corpus / "v1" / release
        folder.mkdir(parents=True)
        for file in range(20):
            (folder / f"{file}.py").write_text(f"text of {file} {number if file < 5 else 0}\n" * 50)
    (corpus / "complete").touch()
    ran = run(tmp_path / "work", "--phases", "push", "--json", str(tmp_path / "result.json"))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    last, each, back, time = json.loads((tmp_path / "result.json").read_text())["phases"]["push"]["rows"]
    assert last["samples"] == each["samples"][-1:] and len(each["samples"]) == len(back["samples"]) == 3
    assert min(each["samples"]) > 0 and min(time["samples"]) > 0


def test_a_goal_is_judged_by_the_median() -> None:
    row = Row("took", [90, 99, 500], "ms", "below 100 ms", 100)
    judged = row.verdict()
    assert judged is not None and judged.reached and judged.measured == "99 ms"
    assert (worse := row._replace(samples=[90, 101, 500]).verdict()) is not None and worse.reached is False
    assert (more := row._replace(least=True).verdict()) is not None and more.reached is False
    assert row._replace(limit=None).verdict() is None


@pytest.mark.parametrize("name", phases.phases(versions))
def test_every_phase_says_what_it_is(name: str) -> None:
    title, measure = phases.load(versions, name)
    assert title != name and callable(measure)


def test_a_phase_that_is_not_there(tmp_path: Path) -> None:
    ran = run(tmp_path / "work", "--phases", "nothing")
    assert ran.returncode == 2 and "diff" in ran.stderr
