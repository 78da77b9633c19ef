"""The memory store passes the conformance suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store_contract import Place, StoreContract


class TestMemory(StoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Place(f"memory:{tmp_path}")
