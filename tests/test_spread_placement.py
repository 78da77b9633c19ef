"""Weighted rendezvous hashing: shares follow weights, changes move no more than they must, copies lie apart."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spraydry.format import frame as frames
from spraydry.format.digest import digest
from spraydry.stores.over.placement import Copies, rank, score

NAMES = [digest(b"frame %d" % number).hex() for number in range(4000)]


@dataclass(frozen=True)
class Place:
    id: bytes
    weight: float


def place(number: int, weight: float = 1.0) -> Place:
    return Place(digest(b"store %d" % number)[:16], weight)


weights = st.lists(st.floats(0.1, 10.0) | st.just(0.0), min_size=1, max_size=6)


@settings(max_examples=20, deadline=None)
@given(weights)
def test_shares_follow_weights(some: list[float]) -> None:
    """Within five standard deviations of a binomial distribution."""
    places = [place(number, weight) for number, weight in enumerate(some)]
    found = Counter(rank(name, places)[0].id for name in NAMES if any(some))
    for one in places:
        share = one.weight / (sum(some) or 1.0)
        slack = 5 * math.sqrt(len(NAMES) * share * (1 - share)) + 1e-9
        assert abs(found[one.id] - len(NAMES) * share) <= slack


@settings(max_examples=20, deadline=None)
@given(weights, st.floats(0.1, 10.0), st.integers(1, 4))
def test_another_store_takes_only_what_it_wins(some: list[float], weight: float, copies: int) -> None:
    """Nothing moves from an old store to another old one: the new one is put in, the others keep their order."""
    places = [place(number, each) for number, each in enumerate(some)]
    new = place(99, weight)
    for name in NAMES[:500]:
        before, after = rank(name, places), rank(name, [*places, new])
        assert [one for one in after if one is not new] == before
        assert len(set(after[:copies])) == min(copies, len(after)), "distinct stores"


@settings(max_examples=20, deadline=None)
@given(weights, st.data())
def test_a_changed_weight_moves_only_from_or_to_that_store(some: list[float], data: st.DataObject) -> None:
    places = [place(number, each) for number, each in enumerate(some)]
    changed = data.draw(st.integers(0, len(some) - 1))
    others = [*places]
    others[changed] = place(changed, data.draw(st.floats(0.1, 10.0) | st.just(0.0)))
    for name in NAMES[:500]:
        before = [one.id for one in rank(name, places) if one.id != places[changed].id]
        assert before == [one.id for one in rank(name, others) if one.id != places[changed].id]


def test_no_weight_no_new_frames() -> None:
    assert rank(NAMES[0], [place(1, 0.0)]) == []
    assert [one.weight for one in rank(NAMES[0], [place(1, 0.0), place(2, 0.5)])] == [0.5]


def test_places_are_pinned() -> None:
    """The same on every machine and in every later build: where what is there lies depends on it."""
    assert [score(bytes(16), 1.0, name) for name in NAMES[:2]] == pytest.approx(
        [6.796546825081069, 3.2722111579821163], rel=1e-12
    )
    order = [place(number, number) for number in range(1, 6)]
    assert [order.index(one) + 1 for one in rank(NAMES[7], order)] == [4, 3, 2, 5, 1]
    with pytest.raises(ValueError, match="not a store's id"):
        score(b"short", 1.0, NAMES[0])


def test_copies_by_class() -> None:
    copies = Copies(1, {"tree": 3, "dictionary": 2})
    tree, other = (frames.encode([b"x" * 100], kind).stored for kind in ("tree", "python"))
    assert copies.of("frames", tree) == copies.of("frames~", tree) == 3
    assert copies.of("frames", other) == copies.of("frames", b"no frame") == copies.of("index", b"") == 1
    assert copies.of("dictionaries", b"") == 2 and copies.most == 3
    for wrong in ((0, {}), (1, {"tree": 0})):
        with pytest.raises(ValueError, match="at least one"):
            Copies(*wrong)
