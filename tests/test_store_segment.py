"""The segment store passes the conformance suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from spraydry.actions.joining import absolute
from spraydry.errors import StoreUnavailable, UsageError
from spraydry.repository import places
from spraydry.stores.base import open_store, split_options
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


@pytest.mark.parametrize(
    "options",
    ["typo=1", "max_file_size=1M&typo=1", "max_files=9&max_file_sizes=1M", "max_file_size=1M&", "b&max_files=2"],
)
def test_an_option_that_is_none(tmp_path: Path, options: str) -> None:
    with pytest.raises(UsageError, match="there are max_file_size, max_files, index_memory"):
        open_store(f"segment:{tmp_path}/store?{options}", create=True)
    assert not list(tmp_path.iterdir())


def test_an_option_without_a_value(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a size"):
        open_store(f"segment:{tmp_path}/store?max_file_size=", create=True)


@pytest.mark.parametrize("name", ["what?", "?", "what?really", "a=b?c", "year=2026", "typo?x=1/", "s?max_files=9/"])
@pytest.mark.parametrize("options", ["", "?max_files=9"])
def test_paths_with_a_question_mark(tmp_path: Path, name: str, options: str) -> None:
    url = f"segment:{tmp_path}/{name}{options}"
    for again in (url, absolute(url)):
        store = open_store(again, create=True)
        assert store.location() == str(tmp_path / name)
        store.close()
    assert [path.name for path in tmp_path.iterdir()] == [name.rstrip("/")]
    assert split_options(absolute(url).removeprefix("segment:"))[1] == options


def test_what_is_behind_a_question_mark_counts_for_where_a_repository_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    url = f"segment:{tmp_path}/a?b"
    store = open_store(url, create=True)
    places.remember(url, store)
    store.close()
    places.check_new(f"segment:{tmp_path}/a")
    places.check_new(f"dir:{tmp_path}/a?c")
    for same in (url, f"segment://{tmp_path}/a?b?max_files=9", f"dir:{tmp_path}/a?b"):
        with pytest.raises(StoreUnavailable):
            places.check_new(same)
