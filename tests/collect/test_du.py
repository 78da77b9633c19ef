"""du: what removing a set would free is what gc then reports as dropped."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spraydry.actions.collect import gc
from spraydry.actions.du import du
from spraydry.actions.ingest import ingest
from spraydry.actions.remove import remove
from spraydry.actions.tag import tag
from spraydry.errors import UsageError
from spraydry.repository.repository import Repository
from tests.small_versions import document
from tests.versions import make_version

CONTENTS = [random.Random(number).randbytes(300 + 90 * number) for number in range(9)]
# More than one chunk, parts of which others have.
CONTENTS += [CONTENTS[1] * 400, CONTENTS[1] * 400 + CONTENTS[2]]

trees = st.dictionaries(
    st.sampled_from([b"a", b"b", b"c"]),
    st.one_of(
        st.sampled_from(CONTENTS),
        st.dictionaries(st.sampled_from([b"x", b"y"]), st.sampled_from(CONTENTS), min_size=1),
    ),
    min_size=1,
)


@settings(max_examples=15)
@given(st.lists(trees, min_size=1, max_size=4), st.lists(st.integers(0, 3), max_size=3), st.data())
def test_what_removing_frees_is_what_gc_drops(versions: list[Mapping[bytes, Any]], tags: list[int], data: Any) -> None:
    with tempfile.TemporaryDirectory() as folder, Repository.open(f"{folder}/r.sqlite", create=True) as repository:
        names = []
        for number, tree in enumerate(versions):
            names.append(str(make_version(repository, "rs"[number % 2], tree)))
        for number in tags:
            root, _, name = names[number % len(versions)].partition("@")
            names.append(str(tag(repository, f"{root}@{name}", f"t{len(names)}")))
        chosen = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
        assert gc(repository, grace_ns=0).dropped_bytes == 0
        used = du(repository, chosen)
        remove(repository, chosen)
        assert gc(repository, grace_ns=0, below=1).dropped_bytes == used.exclusive_bytes <= used.plain_bytes


def test_a_path_has_what_nothing_else_in_any_version_has(repository: Repository) -> None:
    one, two, three = (random.Random(n).randbytes(5000) for n in range(3))
    make_version(repository, "r", {b"d": {b"one": one, b"two": two, b"e": {b"three": three}}, b"two": two})
    alone = du(repository, ["r:d/one"])
    assert (alone.files, alone.apparent_bytes, alone.exclusive_bytes) == (1, 5000, 5000)
    assert du(repository, ["r:d/two"]).exclusive_bytes == 0
    assert du(repository, ["r:d/two", "r:two"]).exclusive_bytes == 5000
    below = du(repository, ["r:d"])
    assert below.files == 3 and below.apparent_bytes == 15000 and 10_000 < below.exclusive_bytes < 10_600
    assert du(repository, ["r:d", "r:d/one", "r:d/e/three"]) == below
    make_version(repository, "s", {b"copy": one})
    assert du(repository, ["r:d/one"]).exclusive_bytes == 0
    assert du(repository, ["r:d/one", "s"]).exclusive_bytes > 5000
    assert du(repository, ["r", "r:d"]) == du(repository, ["r"])
    with pytest.raises(UsageError):
        du(repository, [])


def test_stored_bytes_are_what_becomes_free(repository: Repository, tmp_path: Path) -> None:
    rng = random.Random(1)
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        for place in range(1500):
            if number == 0 or rng.random() < 0.3:
                (source / f"{place:04}.json").write_bytes(document(rng))
        (source / "noise").write_bytes(rng.randbytes(400_000))
        ingest(repository, [str(source)], root="r", threads=1)
    used = du(repository, ["r@v1", "r@v2"])
    before = sum(stored.size for stored in repository.store.list("frames"))
    remove(repository, ["r@v1", "r@v2"])
    assert gc(repository, grace_ns=0, below=1).dropped_bytes == used.exclusive_bytes
    freed = before - sum(stored.size for stored in repository.store.list("frames"))
    assert abs(freed - used.exclusive_stored_bytes) < 0.05 * freed, (freed, used)
