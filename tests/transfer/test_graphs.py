"""Any graph of small versions, sent in any parts and order: all reads the same there, and no more goes over than is
needed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spraydry.actions.closure import chunks_of
from spraydry.actions.transfer import transfer
from spraydry.actions.transfer.plan import WHOLE_SHARE
from spraydry.actions.verify import verify
from spraydry.format.digest import digest
from spraydry.format.entry import FILE, Entry
from spraydry.repository.repository import Repository
from tests.transfer.reading import check_same
from tests.versions import make_version, plain_entry

contents = st.integers(0, 5).map(lambda seed: bytes([seed + 1]) * (3000 + seed))
large = st.integers(0, 3).map(lambda seed: b"".join(bytes([seed, place]) * 32768 for place in range(4)))
names = st.sampled_from([b"a", b"b", b"c", b"d"])
trees = st.recursive(
    contents | large | st.just("target"), lambda below: st.dictionaries(names, below, max_size=4), max_leaves=8
)
tops = st.dictionaries(names, trees, max_size=4)
graphs = st.lists(st.tuples(st.sampled_from(["p", "q"]), tops), min_size=1, max_size=6)
parts = st.lists(st.integers(0, 5), max_size=4)
_folders = itertools.count()


@settings(max_examples=20)
@given(graph=graphs, first=parts)
def test_after_a_push_everything_reads_the_same(
    tmp_path_factory: pytest.TempPathFactory, graph: list[tuple[str, Mapping[bytes, Any]]], first: list[int]
) -> None:
    folder: Path = tmp_path_factory.mktemp(f"graph{next(_folders)}")
    with (
        Repository.open(str(folder / "here.sqlite"), create=True) as source,
        Repository.open(str(folder / "there.sqlite"), create=True) as target,
    ):
        made = [make_version(source, root, tree) for root, tree in graph]
        there: set[bytes] = set()
        for some in [[str(made[place % len(made)])] for place in first] + [[]]:
            sent = [version for version in made if not some or str(version) in some]
            needed = {
                chunk for version in sent for chunk in chunks_of(source, version.record.entry, version.record.links)
            } - there
            before = plain_bytes(target)
            transfer(source, target, some)
            came = plain_bytes(target) - before
            needed_bytes = sum(source.catalog.chunks.locate(chunk)[0].length for chunk in needed)
            assert needed_bytes <= came <= needed_bytes / WHOLE_SHARE
            there = known(source, target)
            check_same(source, target, *map(str, sent))
        assert verify(target).sound
        assert transfer(source, target).sent_bytes == 0


def plain_bytes(repository: Repository) -> int:
    return sum(usage.plain for usage in repository.catalog.usage())


def known(source: Repository, target: Repository) -> set[bytes]:
    """The chunks of the source that the target has."""
    every = [
        chunk
        for root in source.roots()
        for version in source.versions(root)
        for chunk in chunks_of(source, version.record.entry, version.record.links)
    ]
    return target.catalog.chunks.known(every)


def test_entries_that_are_one_file_stay_so(repository: Repository, tmp_path: Path) -> None:
    entry: Entry = msgspec.structs.replace(plain_entry(b"", FILE, digest(b"linked" * 90), 540), group=digest(b"a")[:16])
    make_version(repository, "r", {b"a": entry, b"b": entry, b"plain": b"linked" * 90})
    make_version(repository, "r", {b"a": entry, b"b": entry, b"plain": b"linked" * 90, b"more": b"m"})
    with Repository.open(str(tmp_path / "there.sqlite"), create=True) as target:
        transfer(repository, target, ["r@v1"])
        transfer(repository, target)
        check_same(repository, target)
        record = target.log.find("r").record
        assert target.links(record.links).find(digest(b"a")[:16]).count == 2
