"""Several servers of one repository: the nearest that answers is asked, one that fails is left out for some seconds."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from spraydry.errors import SprayDryError, StoreError, StoreNotFound, StoreUnavailable, UsageError
from spraydry.stores.remote.patience import Patience
from spraydry.stores.remote.server import Busy, Server
from spraydry.stores.remote.wire import Greeting
from spraydry.stores.shared.exchange import Away

T = TypeVar("T")

LEFT_OUT_S = 5.0
_MEASURED_FOR_S = 60.0
_OTHERS_TIMES, _OTHERS_S = 3.0, 0.05  # so much longer than the first that answers the others are waited for, and some
_SAME_S = 0.001  # servers that are nearer than this are all the same

log = logging.getLogger("spraydry.remote")


@dataclass(eq=False)
class _Place:
    """A server, and what is known of it."""

    server: Server
    order: float  # among those equally near
    up: bool = False
    wrong: bool = False  # it serves something else: it is never asked again
    asking: bool = False  # a thread is
    error: SprayDryError | None = None
    again_at_s: float = -math.inf
    measured_at_s: float = -math.inf
    greeting: Greeting | None = None  # None once it failed: who comes back may be another


class Servers:
    """Blocks; threads may share it. What is left out, and how far each is, is found out in threads of its own, so that
    no request waits for a server that is not there while another is."""

    def __init__(self, urls: Sequence[str]) -> None:
        """Raises UsageError for addresses that are none, and for tokens that cannot be used."""
        alone = len(urls) == 1
        self._places = [_Place(Server(url, alone), random.random()) for url in urls]
        self._news = threading.Condition()
        self._closed = False
        self.patience = Patience(", ".join(place.server.url for place in self._places))
        self._first: tuple[str, str] | None = None  # which repository it is, and the server that said so

    def open(self) -> Greeting | None:
        """What the first that answers says of the repository; None where that is one server, and no spraydry. Raises
        StoreErrors where none does, or they serve different repositories, and UsageError for several that are none."""
        began_s = time.monotonic()
        if len(self._places) == 1:
            self._greet(self._places[0])
        else:
            self._wait_for_one()
            with self._news:
                left_s = _OTHERS_TIMES * (time.monotonic() - began_s) + _OTHERS_S
                self._news.wait_for(self._all_said, left_s)
        errors = [place.error for place in self._places if place.error is not None]
        if wrong := next((place.error for place in self._places if place.wrong and place.error), None):
            raise wrong
        found = next((place.greeting for place in self._places if place.up), None)
        if found is None and errors:
            raise errors[0] if len(errors) == 1 else _together(errors)
        return found

    @property
    def round_trip_s(self) -> float:
        """How far the nearest is."""
        return min((place.server.round_trip_s for place in self._places if place.up), default=0.0)

    def ask(self, call: Callable[[Server], T], sound: Callable[[T], bool] = lambda _: True) -> T:
        """What the call returns for the nearest server that does not fail, and whose answer is sound; where none is,
        the first answer. Where nobody is there any more it is made again, as `patience` says. Raises what it raises:
        StoreUnavailable only when it did for all."""
        failed_s, tries = math.inf, 0
        while True:
            try:
                answer = self._ask_all(call, sound)
            except Away as error:
                failed_s, tries = min(failed_s, time.monotonic()), tries + 1
                self.patience.wait(error, failed_s, tries)
            except SprayDryError:
                self.patience.answered()
                raise
            else:
                self.patience.answered()
                return answer

    def _ask_all(self, call: Callable[[Server], T], sound: Callable[[T], bool]) -> T:
        errors: list[SprayDryError] = []
        unsound: list[tuple[_Place, T]] = []
        asked: list[_Place] = []
        places = self._worth_asking()
        while places:
            for place in places:
                asked.append(place)
                try:
                    if place.greeting is None and len(self._places) == 1:
                        self._greet(place)  # who comes back may be another
                    answer = call(place.server)
                except StoreUnavailable as error:
                    self._failed(place, error)
                    errors.append(error)
                    continue
                place.up = True
                if len(self._places) == 1 or sound(answer):
                    for bad, _ in unsound:
                        self._failed(bad, StoreUnavailable(f"{bad.server.url} gives other bytes than it should"))
                    return answer
                unsound.append((place, answer))
            places = self._others_than(asked)
        if unsound:
            return unsound[0][1]  # so it is stored, then; whoever asked verifies it
        errors = list(dict.fromkeys([*errors, *(place.error for place in self._places if place.error is not None)]))
        raise errors[0] if len(errors) == 1 else _together(errors)

    def close(self) -> None:
        """Close the connections nobody uses at the moment, and ask nobody any more."""
        self._closed = True
        for place in self._places:
            place.server.close()

    # -- which

    def _worth_asking(self) -> list[_Place]:
        """The servers that answer, the nearest first. Where none did lately, those that do so now."""
        if len(self._places) == 1:
            return self._places
        now_s = time.monotonic()
        with self._news:
            for place in self._places:
                if now_s >= (place.measured_at_s + _MEASURED_FOR_S if place.up else place.again_at_s):
                    self._ask_later(place)
        if not any(place.up for place in self._places):
            self._wait_for_one()
        return _nearest_first(self._places)

    def _others_than(self, asked: Sequence[_Place]) -> list[_Place]:
        """Servers that were not asked and answer: also such as were left out, or have not said so yet."""
        others = [place for place in self._places if place not in asked]
        with self._news:
            for place in others:
                if not place.up:
                    self._ask_later(place)
            self._news.wait_for(lambda: any(place.up for place in others) or not any(place.asking for place in others))
        return _nearest_first(others)

    def _wait_for_one(self) -> None:
        """Ask all how they are, and wait until one answers, or none does."""
        with self._news:
            for place in self._places:
                self._ask_later(place)
            self._news.wait_for(lambda: any(place.up for place in self._places) or self._all_said())

    def _failed(self, place: _Place, error: SprayDryError) -> None:
        if len(self._places) > 1:
            log.info("%s is left out: %s", place.server.url, error)
        place.up, place.greeting, place.error = False, None, error
        place.again_at_s = time.monotonic() + (error.after_s if isinstance(error, Busy) else LEFT_OUT_S)

    # -- how they are

    def _all_said(self) -> bool:
        return not any(place.asking for place in self._places)

    def _ask_later(self, place: _Place) -> None:
        """Greet it in a thread. The lock is held."""
        if place.asking or place.wrong or self._closed:
            return
        place.asking = True

        def ask() -> None:
            try:
                self._greet(place)
            except SprayDryError as error:
                if isinstance(error, StoreUnavailable):
                    self._failed(place, error)
            finally:
                with self._news:
                    place.asking = False
                    self._news.notify_all()

        threading.Thread(target=ask, name="spraydry-greet", daemon=True).start()

    def _greet(self, place: _Place) -> None:
        """Let it say what it serves. Raises StoreErrors."""
        try:
            said = place.server.greet()
            if said is None and len(self._places) > 1:
                raise UsageError(f"{place.server.url} is no `spraydry serve`: of several servers, each must be one")
            if said is not None:
                self._check(place, said)
        except SprayDryError as error:
            place.error = error
            place.wrong = not isinstance(error, StoreUnavailable) and len(self._places) > 1
            raise
        place.greeting, place.error, place.measured_at_s = said, None, time.monotonic()
        place.up = said is not None

    def _check(self, place: _Place, said: Greeting) -> None:
        with self._news:
            if self._first is None:
                self._first = said.repository, place.server.url
        repository, first = self._first
        if said.repository != repository:
            other = "it did before" if first == place.server.url else f"{first} does"
            raise StoreError(f"{place.server.url} serves another repository than {other}")


def _nearest_first(places: Sequence[_Place]) -> list[_Place]:
    """Those that answer."""
    return sorted((place for place in places if place.up), key=lambda place: (_distance(place.server), place.order))


def _distance(server: Server) -> int:
    """In powers of two, so that those that are about equal count as equal."""
    return round(math.log2(max(server.round_trip_s, _SAME_S)))


def _together(errors: Sequence[SprayDryError]) -> StoreError:
    if not errors:
        return StoreNotFound("none of the servers serves this repository")
    kind = Away if all(isinstance(error, Away) for error in errors) else StoreUnavailable
    return kind("; ".join(dict.fromkeys(map(str, errors))))
