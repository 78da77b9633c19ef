"""Retention rules: what they keep and why, as properties; what a run of them removes, also one that is cut off."""

from __future__ import annotations

import dataclasses
import datetime
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spraydry import cli
from spraydry.actions.commit import Proposal, commit
from spraydry.actions.remove import bring_back, remove, removed
from spraydry.actions.retention import Candidate, Rules, reasons
from spraydry.actions.tag import tag
from spraydry.actions.thin import Decided, thin
from spraydry.errors import RootNotFound, StoreUnavailable, UsageError
from spraydry.repository.repository import Repository
from tests.life.child import killed
from tests.versions import make_version, plain_entry

FIRST = datetime.date(2019, 12, 23)
candidates = st.lists(
    st.builds(
        Candidate,
        names=st.lists(st.sampled_from(["v1", "release-1", "release-2", "nice"]), min_size=1, max_size=3).map(tuple),
        day=st.integers(-400, 1200).map(lambda days: FIRST + datetime.timedelta(days // 3)),
    ),
    max_size=40,
)
few = st.integers(0, 5)
rules = st.builds(
    Rules,
    last=few,
    daily=few,
    weekly=few,
    monthly=few,
    yearly=few,
    tags=st.lists(st.sampled_from(["release-*", "nice", "none"]), unique=True, max_size=2).map(tuple),
)
PERIODS: dict[str, Callable[[datetime.date], object]] = {
    "daily": lambda day: day,
    "weekly": lambda day: day - datetime.timedelta(day.weekday()),
    "monthly": lambda day: (day.year, day.month),
    "yearly": lambda day: day.year,
}


def kept(found: list[list[str]]) -> set[int]:
    return {place for place, why in enumerate(found) if why}


@given(candidates, few, st.sampled_from(sorted(PERIODS)))
def test_a_rule_keeps_the_newest_of_each_of_the_last_periods(made: list[Candidate], number: int, word: str) -> None:
    period = PERIODS[word]
    newest: list[int] = []  # as one would do it by hand: from the newest on, what is the first of its period
    for place in reversed(range(len(made))):
        if all(period(made[place].day) != period(made[other].day) for other in newest):
            newest.append(place)
    assert kept(reasons(made, Rules(**{word: number}))) == set(newest[:number])


@given(candidates, few)
def test_last_keeps_the_last(made: list[Candidate], number: int) -> None:
    assert kept(reasons(made, Rules(last=number))) == set(range(len(made))[len(made) - min(number, len(made)) :])


@given(candidates, rules)
def test_rules_add_up_and_every_reason_names_its_rule(made: list[Candidate], all_rules: Rules) -> None:
    found = reasons(made, all_rules)
    alone: set[int] = set()
    for field in dataclasses.fields(Rules):
        by_itself = reasons(made, Rules(**{field.name: getattr(all_rules, field.name)}))
        alone |= kept(by_itself)
        word = "tag" if field.name == "tags" else field.name
        for place, why in enumerate(by_itself):
            assert [reason for reason in found[place] if reason.split()[0] == word] == why
    assert kept(found) == alone
    untagged = {place for place in kept(found) if not any(reason.startswith("tag ") for reason in found[place])}
    numbers = (all_rules.last, all_rules.daily, all_rules.weekly, all_rules.monthly, all_rules.yearly)
    assert len(untagged) <= sum(numbers)


@given(candidates, rules, st.sampled_from(["last", *PERIODS]))
def test_a_larger_number_keeps_no_less(made: list[Candidate], fewer: Rules, word: str) -> None:
    more = dataclasses.replace(fewer, **{word: getattr(fewer, word) + 1})
    assert kept(reasons(made, fewer)) <= kept(reasons(made, more))


@given(candidates, rules, st.sets(st.integers(0, 39)))
def test_whatever_part_of_it_was_removed_the_same_is_kept(
    made: list[Candidate], all_rules: Rules, survive: set[int]
) -> None:
    """So a run that was cut off is finished by the same command, and a second run removes nothing."""
    keeps = kept(reasons(made, all_rules))
    left = [place for place in range(len(made)) if place in keeps | survive]
    again = kept(reasons([made[place] for place in left], all_rules))
    assert {left[place] for place in again} == keeps


def test_weeks_are_those_of_iso() -> None:
    days = [datetime.date(2024, 12, 29), datetime.date(2024, 12, 30), datetime.date(2025, 1, 1)]
    found = reasons([Candidate((f"v{number}",), day) for number, day in enumerate(days)], Rules(weekly=5, yearly=1))
    assert found == [["weekly 2024-W52"], [], ["weekly 2025-W01", "yearly 2025"]]


# -- on a repository


@pytest.fixture(params=["sqlite", "dir"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Repository]:
    url = str(tmp_path / "r.sqlite") if request.param == "sqlite" else f"dir:{tmp_path / 'r'}"
    with Repository.open(url, create=True) as opened:
        yield opened


def versions_made(repository: Repository, root: str, *days: str) -> None:
    """A version of each local day, at noon, in this order."""
    make_version(repository, "base", {b"f": b"1"})
    entry = repository.log.find("base").record.entry
    for number, day in enumerate(days):
        made = datetime.datetime.combine(datetime.date.fromisoformat(day), datetime.time(12))
        marked = plain_entry(b"", 2, entry.content, 0, mode=0o700, mtime_s=number)
        proposal = Proposal(
            root, None, marked, None, "fixed:size=64K", (), (), "test", made_ns=int(made.timestamp()) * 10**9
        )
        commit(repository, proposal, repository.log.head[0])


def names(decided: list[Decided], stay: bool) -> list[str]:
    return [name.name for one in decided if bool(one.kept_by) is stay for name in one.names]


def test_a_dry_run_says_what_the_run_does(store: Repository) -> None:
    versions_made(store, "r", "2026-01-01", "2026-01-01", "2026-02-03", "2026-02-04", "2026-02-04")
    tag(store, "r@v1", "old")
    tag(store, "r@v3", "release-1")
    before = store.log.head
    told = thin(store, ["r"], Rules(daily=2, tags=("release-*",)), dry_run=True)
    assert store.log.head == before
    assert names(told, True) == ["v3", "release-1", "v5"] and names(told, False) == ["v1", "old", "v2", "v4"]
    assert told[2].kept_by == ("daily 2026-02-03", "tag release-*")
    assert thin(store, ["r"], Rules(daily=2, tags=("release-*",))) == told
    assert [version.name for version in store.versions("r")] == ["v3", "v5", "release-1"]
    assert [past.version.name for past in removed(store, "r")] == ["v1", "v2", "v4", "old"]
    head = store.log.head
    assert names(thin(store, ["r"], Rules(daily=2, tags=("release-*",))), False) == [] and store.log.head == head


def test_a_version_of_which_only_a_later_name_is_left_keeps_its_place(store: Repository) -> None:
    versions_made(store, "r", "2026-01-01", "2026-01-02")
    tag(store, "r@v1", "late")
    remove(store, ["r@v1"])
    told = thin(store, ["r"], Rules(last=1))
    assert (names(told, False), names(told, True)) == (["late"], ["v2"])


def test_clocks_that_were_wrong(store: Repository) -> None:
    """Order is the log's: one version from the future counts as one day that was long ago."""
    versions_made(store, "r", "2026-01-01", "2199-05-05", "2026-01-02", "1971-01-01", "2026-01-03", "2026-01-03")
    assert names(thin(store, ["r"], Rules(daily=2), dry_run=True), True) == ["v4", "v6"]
    assert names(thin(store, ["r"], Rules(last=1, yearly=2), dry_run=True), True) == ["v4", "v6"]


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_days_are_local_days(store: Repository, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        versions_made(store, "r", "2026-01-01", "2026-01-02")
        assert [one.kept_by for one in thin(store, ["r"], Rules(daily=9), dry_run=True)] == [
            ("daily 2026-01-01",),
            ("daily 2026-01-02",),
        ]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_rules_that_keep_nothing_are_refused(store: Repository) -> None:
    versions_made(store, "r", "2026-01-01", "2026-01-01")
    versions_made(store, "s", "2026-01-01")
    tag(store, "s", "nice")
    before = store.log.head
    for roots, nothing in ((["r"], Rules()), (["r"], Rules(last=0)), (["s", "r"], Rules(tags=("nice",)))):
        with pytest.raises(UsageError, match=r"none of the 2 versions of r: .*--force"):
            thin(store, roots, nothing)
    with pytest.raises(RootNotFound):
        thin(store, ["s", "nothing"], Rules(last=1))
    assert store.log.head == before
    thin(store, ["r", "r"], Rules(), force=True)
    assert store.roots() == ["base", "s"]


def test_cut_off_in_between(store: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    versions_made(store, "r", *(f"2026-01-{day:02}" for day in range(1, 11)))
    rules = Rules(last=2, daily=4)
    append, done = store.log.append, 0

    def failing(make: object) -> object:
        nonlocal done
        done += 1
        if done == 4:
            raise StoreUnavailable("the line is cut")
        return append(make)  # type: ignore[arg-type]

    monkeypatch.setattr(store.log, "append", failing)
    with pytest.raises(StoreUnavailable):
        thin(store, ["r"], rules)
    monkeypatch.undo()
    store.refresh()
    left = [version.name for version in store.versions("r")]
    assert left in ([f"v{number}" for number in range(first, 11)] for first in (1, 4))  # at once, or the oldest first
    thin(store, ["r"], rules)
    assert [version.name for version in store.versions("r")] == ["v7", "v8", "v9", "v10"]


def test_killed_at_every_write(store: Repository) -> None:
    """Whatever was removed by then, the rest is there, and the same command ends with what it would have kept."""
    versions_made(store, "r", *(f"2026-01-{day:02}" for day in range(1, 7)))
    rules = ["--repo", store.url, "rm", "r", "--keep-last", "2"]
    store.close()
    counts = set()
    for write in range(1, 6):
        killed(rules, write)
        with Repository.open(store.url) as reopened:
            left = [version.name for version in reopened.versions("r")]
            assert left == [f"v{number}" for number in range(7 - len(left), 7)] and len(left) >= 2
            counts.add(len(left))
            told = thin(reopened, ["r"], Rules(last=2))
            assert names(told, True) == ["v5", "v6"] == [version.name for version in reopened.versions("r")]
            bring_back(reopened, ["r@v1", "r@v2", "r@v3", "r@v4"])
    assert len(counts) > 1, "no kill came in between"


def test_two_at_once(store: Repository) -> None:
    versions_made(store, "r", "2026-01-01", "2026-01-02", "2026-01-03")
    with Repository.open(store.url) as other:
        thin(other, ["r"], Rules(last=1))
        assert [version.name for version in store.log.versions("r")] == ["v1", "v2", "v3"], "nothing was read since"
        thin(store, ["r"], Rules(last=2))
        remove(other, ["r@v3"])
    store.refresh()
    assert [past.version.name for past in removed(store, "r")] == ["v1", "v2", "v3"]
    assert sum(type(record).__name__ == "RemovalRecord" for record in store.log.records) == 3


def test_the_command(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    def spray(*arguments: str) -> tuple[int, str, str]:
        return cli.run([*arguments, "--repo", repository.url]), *capsys.readouterr()

    versions_made(repository, "r", "2026-01-01", "2026-01-01", "2026-02-03")
    tag(repository, "r@v1", "nice")
    for wrong in (
        ["rm", "r@v1", "--keep-last", "1"],
        ["rm", "r:d", "--all"],
        ["rm", "r", "--keep-last", "-1"],
        ["rm", "r", "--keep-last", "x"],
        ["rm", "r", "--all", "--keep-last", "1"],
        ["rm", "--keep-last", "1"],
        ["rm", "r"],
        ["rm", "r", "--force"],
        ["rm", "r", "--keep-tag", "none"],
        ["rm", "r", "--keep-last", "0"],
    ):
        code, out, err = spray(*wrong)
        assert (code, out, err.count("\n")) == (2, "", 1), (wrong, err)
    told = spray("rm", "r", "--keep-monthly", "1", "--keep-tag", "n?ce", "--dry-run")
    assert told[0] == 0 and "would go" in told[1] and "1 version would be removed, 2 stay" in told[1]
    dry = json.loads(spray("rm", "r", "--keep-monthly", "1", "--keep-tag", "n?ce", "--dry-run", "--json")[1])
    assert [one["removed"] for one in dry] == [False, True, False] and dry[0]["names"] == ["v1", "nice"]
    done = json.loads(spray("rm", "r", "--keep-monthly", "1", "--keep-tag", "n?ce", "--json")[1])
    assert [{**one, "dry_run": True} for one in done] == dry
    code, out, _ = spray("rm", "r", "--all")
    assert code == 0 and "2 versions removed, 0 stay" in out
    assert "undelete r@v1 r@nice r@v3" in out
    code, _, err = spray("log", "r")
    assert code == 4 and "log --removed r" in err
    assert spray("undelete", "r@nice", "r@v3")[0] == 0
    assert spray("log", "r")[1].count("r@") == 2
