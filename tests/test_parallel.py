"""The bounded, ordered thread map."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from spraydry.parallel import default_threads, ordered_map


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("ahead", [None, 1, 3, 100])
def test_results_in_order(threads: int, ahead: int | None) -> None:
    def slow(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number * number

    assert list(ordered_map(slow, range(40), threads, ahead)) == [number * number for number in range(40)]
    assert list(ordered_map(slow, [], threads, ahead)) == []


def test_it_runs_in_threads() -> None:
    together = threading.Barrier(4, timeout=120)
    assert sum(ordered_map(lambda number: together.wait() >= 0, range(8), 4)) == 8


@pytest.mark.parametrize("ahead", [1, 3, 10])
def test_no_more_than_that_is_drawn_ahead(ahead: int) -> None:
    drawn = taken = 0

    def items() -> Iterator[int]:
        nonlocal drawn
        for number in range(50):
            drawn += 1
            yield number

    for _ in ordered_map(lambda number: number, items(), 2, ahead):
        assert drawn - taken <= ahead
        taken += 1
    assert taken == 50


def test_an_exception_comes_where_its_result_would() -> None:
    seen = []
    done = []

    def fail(number: int) -> int:
        if number == 5:
            raise ValueError("five")
        done.append(number)
        return number

    with pytest.raises(ValueError, match="five"):
        for number in ordered_map(fail, range(1000), 2, 4):
            seen.append(number)
    assert seen == [0, 1, 2, 3, 4]
    assert max(done) < 20, "what was not started is not started any more"


def test_items_that_fail() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(ordered_map(lambda number: number, items(), 2))


def test_stopping_early_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    results = ordered_map(lambda number: number, range(1000), 4)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert not set(threading.enumerate()) - before


def test_default_threads() -> None:
    assert default_threads() >= 1
