"""A long life of a repository: any verbs in any order, with mounts open, damage, and processes killed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from spraydry.actions.collect import mark_versions, planning
from spraydry.actions.progress import Report
from spraydry.errors import SprayDryError
from spraydry.format.version import VersionRecord
from spraydry.repository.marks import Marks
from spraydry.repository.repository import Repository
from tests.life.machine import Life


@pytest.fixture
def quick() -> Iterator[Path]:
    """A folder where fsync costs nothing, if there is one: what is tested is the order of things, not the disk."""
    folder = Path(tempfile.mkdtemp(prefix="spraydry-life-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(("url", "other_url"), [("sqlite:{}.sqlite", "dir:{}"), ("dir:{}", "segment:{}")])
def test_a_long_life(quick: Path, url: str, other_url: str) -> None:
    lived(quick, url, other_url)


def lived(folder: Path, url: str, other_url: str) -> None:
    """Some lives, each in a folder of its own. Raises what the first one raised that went wrong."""
    life = type("Life", (Life,), {"folder": folder, "url": url, "other_url": other_url})
    run_state_machine_as_test(
        life,
        settings=settings(
            max_examples=6 if settings.default.derandomize else 60,  # HYPOTHESIS_PROFILE=search looks for new ones
            stateful_step_count=30,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_what_is_broken_is_found(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a collection that takes the oldest version for dead does not live long."""

    def mark_others(
        repository: Repository, marks: Marks, versions: Mapping[int, VersionRecord], report: Report
    ) -> None:
        mark_versions(repository, marks, dict(sorted(versions.items())[1:]), report)

    monkeypatch.setattr(planning, "mark_versions", mark_others)
    with pytest.raises((AssertionError, SprayDryError)):
        lived(quick, "sqlite:{}.sqlite", "dir:{}")
