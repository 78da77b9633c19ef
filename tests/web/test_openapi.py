"""The OpenAPI description is true: whatever schemathesis makes of it, the answers are as it says, and none is a 500."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from spraydry.actions.ingest import ingest
from spraydry.actions.verify import verify
from spraydry.format.digest import digest
from spraydry.repository.repository import Repository
from tests.web.serving import Running, serving

# What is sent may be as the schema has it and still not be what its name says.
_CONFIGURATION = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "412", "416", "422"]
"""
_REAL = """
[parameters]
"path.digest" = "{digest}"
"path.address" = "src@v1"
"path.path" = "sub"
"path.namespace" = "frames"
"path.name" = "{frame}"
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("described")
    (folder / "src" / "sub").mkdir(parents=True)
    (folder / "src" / "a.txt").write_bytes(b"content")
    (folder / "src" / "sub" / os.fsdecode(b"odd \xff\n%")).write_bytes(random.randbytes(300_000))
    with Repository.open(str(folder / "repository.sqlite"), create=True) as repository:
        ingest(repository, [str(folder / "src")], root="src")
    return str(folder / "repository.sqlite")


@pytest.fixture(scope="module")
def server(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("server"), SPRAYDRY_REPO=url) as running:
        yield running


def schemathesis(server: Running, folder: Path, configuration: str, *arguments: str) -> None:
    """Run it over the description; fails where it finds anything, and where the server does not go on."""
    (folder / "schemathesis.toml").write_text(configuration)
    ran = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            *("--config-file", str(folder / "schemathesis.toml"), "run", f"{server.url}/v1/openapi.json"),
            *("--seed", "1", "--checks", "all", "--no-shrink", "--generation-database", "none"),
            # That this machine is slow is no fault of the server.
            *("--request-timeout", "120", "--suppress-health-check", "too_slow"),
            *arguments,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ran.returncode == 0, f"{ran.stdout[-5000:]}\n{ran.stderr[-2000:]}\n{server.log.read_text()[-2000:]}"
    assert "Traceback" not in server.log.read_text()
    with urlopen(f"{server.url}/healthz") as answer:
        assert answer.status == 200


@pytest.mark.slow
def test_what_anybody_may_ask(server: Running, url: str, tmp_path: Path) -> None:
    schemathesis(server, tmp_path, _CONFIGURATION, "--phases", "coverage,fuzzing", "--max-examples", "12")
    with Repository.open(url) as repository:
        assert verify(repository).sound


@pytest.mark.slow
def test_what_is_asked_of_what_is_there(server: Running, url: str, tmp_path: Path) -> None:
    with Repository.open(url) as repository:
        frame = next(repository.store.list("frames")).name
    real = _REAL.format(digest=digest(b"content").hex(), frame=frame)
    there = ("--include-path-regex", "^/(v1/(trees|values|chunks)|.address)")
    schemathesis(server, tmp_path, _CONFIGURATION + real, "--phases", "fuzzing", "--max-examples", "20", *there)
    with Repository.open(url) as repository:
        assert verify(repository).sound  # the frame is still there, though anybody may delete


def test_it_is_whole(server: Running) -> None:
    with urlopen(f"{server.url}/v1/openapi.json") as answer:
        told = json.load(answer)
    assert told["openapi"].startswith("3.1") and told["servers"] == [{"url": "/"}]
    names = [one["operationId"] for item in told["paths"].values() for one in item.values()]
    assert len(names) == len(set(names)) > 20
    text = json.dumps(told)
    for part in told["components"]["schemas"]:
        assert f'"#/components/schemas/{part}"' in text
    for used in {one for one in text.split('"') if one.startswith("#/components/schemas/")}:
        assert used.rpartition("/")[2] in told["components"]["schemas"]
