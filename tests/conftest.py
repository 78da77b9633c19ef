"""Fixtures shared by all tests; small on purpose."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from spraydry.commands import progress
from spraydry.repository import leases
from spraydry.repository.repository import Repository

# What is printed does not hang on where the tests are started from.
_OF_TERMINALS = ("TERM", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")

# The same examples every time; `HYPOTHESIS_PROFILE=search` looks for new ones, longer.
settings.register_profile(
    "ci", derandomize=True, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session", autouse=True)
def folders_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Neither does what modules share, which is made before a test has folders of its own."""
    with pytest.MonkeyPatch.context() as patch:
        _own_folders(tmp_path_factory, patch)
        yield


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or leaves anything in the user's folders."""
    _own_folders(tmp_path_factory, monkeypatch)


def _own_folders(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> None:
    base = tmp_path_factory.mktemp("xdg")
    for kind in ("cache", "config", "data", "state"):
        patch.setenv(f"XDG_{kind.upper()}_HOME", str(base / kind))
    for name in ("SPRAYDRY_REPO", "SPRAYDRY_TOKEN", *_OF_TERMINALS):
        patch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def progress_that_stays_unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed does not hang on how long it takes."""
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 3600.0)


@pytest.fixture(autouse=True)
def leases_that_stay_unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who writes is spared by collections from its first heartbeat on: that comes when a test says so, and not on a
    machine that is slow."""
    monkeypatch.setattr(leases, "HEARTBEAT_S", 3600.0)


@pytest.fixture(scope="module", autouse=True)
def the_same_noise_for_a_module(request: pytest.FixtureRequest) -> None:
    """What is made by chance for all tests of a module is the same in every run."""
    random.seed(request.node.nodeid)


@pytest.fixture(autouse=True)
def the_same_noise(request: pytest.FixtureRequest) -> None:
    """And so is what one test makes: a failure that hangs on bytes comes again."""
    random.seed(request.node.nodeid)


@pytest.fixture
def rng() -> random.Random:
    """Seeded, the same in every run."""
    return random.Random(20260101)


@pytest.fixture
def repository_path(tmp_path: Path) -> str:
    """Where a test's repository goes; nothing is there yet."""
    return str(tmp_path / "repository.sqlite")


@pytest.fixture
def repository(repository_path: str) -> Iterator[Repository]:
    """A new, empty repository in one SQLite file."""
    with Repository.open(repository_path, create=True) as opened:
        yield opened
