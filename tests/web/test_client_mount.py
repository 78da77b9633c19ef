"""A mount over HTTP passes the comparisons that a local one does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import engine, fuse, point, spraydry
from tests.mount.test_mount import (
    test_a_large_directory,
    test_a_mount_is_what_was_ingested,
    test_everything_live,
    test_many_readers_of_large_and_small_files,
    test_nothing_can_be_written,
)
from tests.web.serving import serving

__all__ = [
    "engine",
    "fuse",
    "point",
    "spraydry",
    "test_a_large_directory",
    "test_a_mount_is_what_was_ingested",
    "test_everything_live",
    "test_many_readers_of_large_and_small_files",
    "test_nothing_can_be_written",
]
pytestmark = pytest.mark.fuse


@pytest.fixture
def repository_path(tmp_path: Path) -> Iterator[str]:
    """The address of a server of a new repository; everything in those tests goes through it."""
    homes = {name: str(tmp_path / "elsewhere" / name) for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME")}
    with serving(tmp_path / "server", SPRAYDRY_REPO=str(tmp_path / "repository.sqlite"), **homes) as server:
        yield server.url
