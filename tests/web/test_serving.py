"""The server's process: it starts, answers, and ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.web.serving import serving


def test_it_answers_and_ends(tmp_path: Path) -> None:
    with serving(tmp_path, SPRAYDRY_REPO=str(tmp_path / "repository.sqlite")) as server:
        with urlopen(f"{server.url}/healthz") as answer:
            assert json.load(answer) == {"status": "ok"}
        assert server.end() == 0


@pytest.mark.parametrize("verb", [["serve"], ["token", "list", "--tokens", "tokens.json"]])
def test_without_its_packages_it_says_what_to_install(verb: list[str], tmp_path: Path) -> None:
    program = f"import sys; sys.modules['starlette'] = None\nfrom spraydry.cli import run; sys.exit(run({verb!r}))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "SPRAYDRY_REPO": str(tmp_path / "repository.sqlite")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "spraydry: serving needs the Python package starlette: pip install 'spraydry[serve]'\n"
