"""scripts/bench-serve runs on next to nothing. No time is looked at."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

from benchmark import phases, serve  # noqa: E402

PROGRAM = Path(sys.executable).with_name("spraydry")


def run(work: Path, name: str) -> tuple[list[str], list[str]]:
    """Run one phase; what its rows and its goals are called."""
    result = work / "result.json"
    options = ["--work", str(work), "--spraydry", str(PROGRAM), "--repeat", "1", "--scale", "0.001"]
    command = [sys.executable, str(SCRIPTS / "bench-serve"), *options, "--phases", name, "--json", str(result)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = json.loads(result.read_text())["phases"][name]
    assert all(min(row["samples"]) > 0 for row in told["rows"])
    assert not (work / "run").exists()
    return [row["what"] for row in told["rows"]], [goal["goal"] for goal in told["goals"]]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_large(tmp_path: Path) -> None:
    rows, goals = run(tmp_path, "large")
    assert len(rows) == 7 and len(goals) == 2


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_accel(tmp_path: Path) -> None:
    rows, goals = run(tmp_path, "accel")
    assert len(rows) == 4 and len(goals) == 1


@pytest.mark.parametrize("name", ["small", "memory"])
def test_others(tmp_path: Path, name: str) -> None:
    rows, goals = run(tmp_path, name)
    assert len(rows) > 1 and len(goals) == 1


@pytest.mark.parametrize("name", phases.phases(serve))
def test_every_phase_says_what_it_is(name: str) -> None:
    title, measure = phases.load(serve, name)
    assert title != name and callable(measure)
