"""`scripts/pytest-twice`: a test that fails by chance is told, and stops nothing; one that fails does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "pytest-twice"
UNSTEADY = """
from pathlib import Path

def test_{name}():
    seen = Path(__file__ + ".{name}")
    ran_before = seen.exists()
    seen.touch()
    assert ran_before
"""
FAILING = "def test_failing(): raise AssertionError\n"
PASSING = "def test_passing(): pass\n"


@pytest.mark.parametrize(
    ("tests", "status", "told"),
    [
        ({"test_a": PASSING}, 0, 0),
        ({"test_a": PASSING + UNSTEADY.format(name="one") + UNSTEADY.format(name="two")}, 0, 2),
        ({"test_a": PASSING, "test_b": UNSTEADY.format(name="one"), "test_c": FAILING}, 1, 0),
        ({"test_a": "".join(UNSTEADY.format(name=name) for name in ("one", "two", "three", "four"))}, 1, 0),
        ({"faults/test_a": UNSTEADY.format(name="one")}, 1, 0),
        ({"test_a": UNSTEADY.format(name="one_that_was_killed")}, 1, 0),
        ({"test_a": "syntax error"}, 2, 0),
        ({"test_a": ""}, 5, 0),
    ],
)
def test_what_fails_by_chance(tmp_path: Path, tests: dict[str, str], status: int, told: int) -> None:
    for name, text in tests.items():
        file = tmp_path / "tests" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "pytest.ini").touch()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run([SCRIPT, "-p", "xdist.plugin"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stdout.count("== UNSTEADY") == told
