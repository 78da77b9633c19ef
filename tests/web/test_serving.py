"""The server's process: it starts, answers, and ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from spraydry.cli import run
from spraydry.errors import StoreNotFound
from spraydry.repository.repository import Repository
from tests.web.serving import serving


def test_it_answers_and_ends(tmp_path: Path) -> None:
    with serving(tmp_path, SPRAYDRY_REPO=str(tmp_path / "repository.sqlite")) as server:
        with urlopen(f"{server.url}/healthz") as answer:
            assert json.load(answer) == {"status": "ok"}
        assert server.end() == 0


@pytest.mark.parametrize("scheme", ["", "dir:", "segment:"])
@pytest.mark.parametrize("named", ["NAME=URL", "--repo", "SPRAYDRY_REPO"])
def test_what_is_named_is_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, named: str, scheme: str
) -> None:
    url = f"{scheme}{tmp_path}/photso"
    monkeypatch.setenv("SPRAYDRY_REPO", url if named == "SPRAYDRY_REPO" else "")
    arguments = {"NAME=URL": [f"photos={url}"], "--repo": ["--repo", url], "SPRAYDRY_REPO": []}[named]
    assert run(["serve", "--listen", "127.0.0.1:0", *arguments]) == StoreNotFound.exit_code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert f"there is no repository at {tmp_path}/photso" in err and f"`spraydry init --repo {url}` first" in err
    assert not list(tmp_path.iterdir())


def test_the_default_place_is_made(tmp_path: Path) -> None:
    with serving(tmp_path, SPRAYDRY_REPO="", XDG_DATA_HOME=str(tmp_path / "data")) as server:
        assert server.end() == 0
    with Repository.open(str(tmp_path / "data/spraydry/repository.sqlite")) as repository:
        assert repository.roots() == []
    assert "a new, empty repository is there now" in server.log.read_text()


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
