"""The dir store passes the conformance suite, and stands what can happen to a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store_contract import Place, StoreContract


class TestDir(StoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Place(f"dir:{tmp_path}/store")
