"""The list of stores: what is written is read again, and what cannot be is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spraydry.errors import CorruptData, UsageError
from spraydry.repository.configuration import Configuration, StoreEntry, decode, encode

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)
urls = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=40)
entries = st.builds(
    StoreEntry,
    name=names,
    id=st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    url=urls,
    weight=st.floats(0, 1e9),
    cache=st.just("") | urls,
    cache_size=st.sampled_from(("10G", "1.5M", "100")),
    up=st.sampled_from(("", "10M")),
    latency_ms=st.floats(0, 1000),
)


def configuration(*stores: StoreEntry, **fields: object) -> Configuration:
    return Configuration(**({"number": 1, "owner": stores[0].name, "store": stores} | fields))  # type: ignore[arg-type]


MAIN = StoreEntry("main", "0" * 32, "dir:/srv/a")
OTHER = StoreEntry("other", "1" * 32, "s3://bucket/b", weight=2.5, cache="dir:/var/cache/x")


@given(
    st.lists(entries, min_size=1, max_size=4, unique_by=(lambda one: one.name, lambda one: one.id)),
    st.integers(1, 100),
    st.dictionaries(names, st.integers(1, 100), max_size=3),
)
def test_what_is_written_is_read_again(stores: list[StoreEntry], copies: int, copies_of: dict[str, int]) -> None:
    made = configuration(*stores, copies=copies, copies_of=copies_of)
    assert decode(encode(made)) == made


def test_the_text() -> None:
    text = encode(configuration(MAIN, OTHER, copies=2, copies_of={"tree": 3})).decode()
    assert text.splitlines() == [
        "# The stores of a spraydry repository. `spraydry store` changes this.",
        "number = 1",
        'owner = "main" # has the log',
        "copies = 2 # of each frame",
        "",
        "[copies_of] # by class of frame",
        '"tree" = 3',
        "",
        "[[store]]",
        'name = "main"',
        'id = "00000000000000000000000000000000"',
        'url = "dir:/srv/a"',
        "",
        "[[store]]",
        'name = "other"',
        'id = "11111111111111111111111111111111"',
        'url = "s3://bucket/b"',
        "weight = 2.5",
        'cache = "dir:/var/cache/x"',
    ]


def test_changes() -> None:
    one = configuration(MAIN)
    two = one.with_stores(MAIN, OTHER)
    assert (two.number, two.store) == (2, (MAIN, OTHER))
    more = two.with_stores(copies=2)
    assert (more.number, more.store, more.copies) == (3, two.store, 2)
    with pytest.raises(UsageError, match="main, other"):
        two.entry("mian")


@pytest.mark.parametrize(
    "wrong",
    [
        configuration(MAIN, MAIN),
        configuration(MAIN, owner="other"),
        configuration(MAIN, copies=0),
        configuration(MAIN, copies_of={"tree": 101}),
        configuration(MAIN, number=0),
        configuration(StoreEntry("a/b", "0" * 32, "x")),
        configuration(StoreEntry("a", "0" * 31, "x")),
        configuration(StoreEntry("a", "0" * 32, "")),
        configuration(StoreEntry("a", "0" * 32, "x", weight=-1)),
        configuration(StoreEntry("a", "0" * 32, "x", weight=float("nan"))),
        configuration(StoreEntry("a", "0" * 32, "x", up="fast")),
        configuration(StoreEntry("a", "0" * 32, "x", down="0")),
        configuration(StoreEntry("a", "0" * 32, "x", cache_size="-1")),
        configuration(StoreEntry("a", "0" * 32, "x", latency_ms=float("inf"))),
        configuration(MAIN, StoreEntry("other", MAIN.id, "x")),
    ],
)
def test_what_cannot_be_is_not_written(wrong: Configuration) -> None:
    with pytest.raises(UsageError):
        encode(wrong)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"number = 1",
        b"\xff",
        b"number = 1\nowner = 'a'\nstore = []",
        b"#" * (1 << 20) + b"#",
        encode(configuration(MAIN)) + b"more = 1\n",
        encode(configuration(MAIN)).replace(b"dir:", b"dir:\0"),
    ],
)
def test_what_cannot_be_read_is_refused(text: bytes) -> None:
    with pytest.raises(CorruptData, match="list of stores"):
        decode(text)
