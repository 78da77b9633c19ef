"""Long work for pages: it stops in time and says so, and it stops when nobody waits any more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
import trio.testing
from starlette.requests import Request

from spraydry.actions.find import Query, condition, find
from spraydry.actions.grep import Pattern, grep
from spraydry.actions.progress import Done
from spraydry.repository.repository import Repository
from spraydry.web.grant import EVERYTHING
from spraydry.web.pages import page
from spraydry.web.pages.compare import compare
from spraydry.web.pages.history import history
from spraydry.web.pages.page import Ask, Page, Patience, answered, asked
from spraydry.web.pages.search import search
from spraydry.web.pages.space import space
from spraydry.web.served import Served
from tests.versions import make_version

VERSIONS = 6


@pytest.fixture
def changing(repository: Repository) -> Repository:
    """Versions in which files come, go, move and come back, with a text that each of them has."""
    for number in range(VERSIONS):
        tree = {
            b"f%02d" % at: b"needle %d\n" % (at * (number if at % 3 else 1)) for at in range(60) if (at + number) % 5
        }
        make_version(repository, "r", {**tree, b"d": {b"moved%d" % number: b"needle always\n"}})
    return repository


class Calls:
    """Enough after so many times of asking."""

    def __init__(self, most: int) -> None:
        self.left = most

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def spread_out(places: Iterator[Any]) -> set[tuple[bytes, int]]:
    """Paths with the numbers of versions."""
    return {
        (place.path, number)
        for place in places
        for first, last in place.versions
        for number in range(int(first[1:]), int(last[1:]) + 1)
    }


@pytest.mark.parametrize("verb", ["find", "grep"])
def test_what_is_found_until_then_is_true(changing: Repository, verb: str) -> None:
    def found(enough: Calls) -> dict[bytes, set[tuple[bytes, int]]]:
        query = Query(b"[fm]*")
        if verb == "find":
            return {m.entry.file_digest or b"": spread_out(m.places) for m in find(changing, query, enough=enough)}
        matches = grep(changing, Pattern(b"needle"), wanted=condition(query), enough=enough)
        return {m.entry.file_digest or b"": spread_out(m.places) for m in matches}

    whole = found(Calls(1 << 40))
    sizes = []
    for most in range(12):
        some = found(Calls(most))
        assert all(places and places <= whole[name] for name, places in some.items())
        sizes.append(sum(map(len, some.values())))
    assert sizes[0] == 0 and sizes == sorted(sizes) and sizes[-1] > 0
    assert any(0 < size < sum(map(len, whole.values())) for size in sizes) or verb == "grep"


@dataclass
class Over(Patience):
    """Patience that is at its end from the beginning."""

    seconds: float = 0.0
    ended: bool = field(default=False)

    def over(self) -> bool:
        self.ended = True
        return True


@pytest.mark.parametrize(
    ("make", "rest", "query"),
    [
        (search, b"", {"q": "f0", "in": "name"}),
        (search, b"", {"q": "needle", "in": "content"}),
        (compare, b"", {"from": "r@v1", "to": "r@v6"}),
        (history, b"r/f01", {}),
        (space, b"r@v6", {"by": "exclusive"}),
    ],
)
def test_pages_say_that_they_stopped(changing: Repository, make: Any, rest: bytes, query: dict[str, str]) -> None:
    ask = Ask(Served(changing), b"/", query, EVERYTHING, rest, Over())
    some = make(changing, ask)
    assert isinstance(some, Page) and some.context["stopped"]
    whole = make(changing, Ask(Served(changing), b"/", query, EVERYTHING, rest))
    assert not whole.context["stopped"]


async def test_work_ends_when_the_client_leaves(repository: Repository) -> None:
    gone = trio.Event()
    working = trio.Event()
    token = trio.lowlevel.current_trio_token()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [],
        "spraydry.grant": EVERYTHING,
    }
    request, served = Request(scope, receive), Served(repository)
    steps = 0

    def long_work(_: Repository, ask: Ask) -> Page:
        nonlocal steps
        trio.from_thread.run_sync(working.set, trio_token=token)
        while True:
            steps += 1
            ask.patience(Done("working"))
            trio.from_thread.run(trio.sleep, 0.001)

    with trio.fail_after(300):
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                await working.wait()
                gone.set()

            nursery.start_soon(leave)
            answer = await answered(request, asked(request, served), long_work, seconds=1000)
    assert answer.status_code == 503 and steps


async def test_what_never_ends_is_not_waited_for(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_GRACE_S", 0.05)
    release = threading.Event()

    async def receive() -> dict[str, Any]:
        await trio.sleep_forever()
        raise AssertionError

    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": []}
    request = Request({**scope, "spraydry.grant": EVERYTHING}, receive)

    def never(_: Repository, ask: Ask) -> Page:
        release.wait(300)
        return Page("trouble.html", {"status": 200, "text": ""})

    try:
        with trio.fail_after(300):
            answer = await answered(request, asked(request, Served(repository)), never, seconds=0.05)
    finally:
        release.set()
    assert answer.status_code == 503 and b"too long for a page" in answer.body


async def test_long_pages_leave_threads_for_others(repository: Repository) -> None:
    async def receive() -> dict[str, Any]:
        await trio.sleep_forever()
        raise AssertionError

    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": []}
    request = Request({**scope, "spraydry.grant": EVERYTHING}, receive)
    served = Served(repository)
    free = trio.Event()

    def waits(_: Repository, ask: Ask) -> Page:
        trio.from_thread.run(free.wait)
        return Page("trouble.html", {"status": 200, "text": ""})

    with trio.fail_after(300):
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(lambda: answered(request, asked(request, served), waits, seconds=1000))
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert await served.call(lambda: 42) == 42
            free.set()
