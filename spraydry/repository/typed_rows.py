"""Rows of a catalog's tables that are what they should be."""

from __future__ import annotations

from collections.abc import Iterable
from types import UnionType
from typing import Any

from spraydry.errors import CorruptData
from spraydry.stores.database.database import Database


def typed_rows(
    database: Database, sql: str, values: Iterable[object], *types: type | UnionType
) -> list[tuple[Any, ...]]:
    """Rows of which each value is of its column's type: SQLite does not look when it reads, and flipped bits may have
    made text of bytes. Raises CorruptData."""
    rows = database.rows(sql, values)
    for row in rows:
        if not all(isinstance(value, kind) for value, kind in zip(row, types, strict=True)):
            where = f"{database.path} is damaged: its index has a row that cannot be"
            raise CorruptData(f"{where}; `spraydry verify --rebuild` makes it anew")
    return rows
