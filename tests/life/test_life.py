"""A long life of a repository: any verbs in any order, with mounts open, damage, and processes killed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.life.machine import Life


@pytest.fixture
def quick() -> Iterator[Path]:
    """A folder where fsync costs nothing, if there is one: what is tested is the order of things, not the disk."""
    folder = Path(tempfile.mkdtemp(prefix="spraydry-life-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(("url", "other_url"), [("sqlite:{}.sqlite", "dir:{}"), ("dir:{}", "segment:{}")])
def test_a_long_life(quick: Path, url: str, other_url: str) -> None:
    life = type("Life", (Life,), {"folder": quick, "url": url, "other_url": other_url})
    run_state_machine_as_test(
        life,
        settings=settings(
            max_examples=4 if settings.default.derandomize else 60,  # HYPOTHESIS_PROFILE=search looks for new ones
            stateful_step_count=30,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
