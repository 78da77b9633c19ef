"""The segment store passes the conformance suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store_contract import Place, StoreContract


class TestSegment(StoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Place(f"segment:{tmp_path}/store")


class TestSmallSegments(StoreContract):
    """Many segments: sealing, merging and reclaiming all the time."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Place(f"segment:{tmp_path}/store?max_file_size=2K")
