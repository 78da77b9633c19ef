"""Leases: held while their process lives, told dead by the observer's own clock, and never in the way."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from spraydry.format.digest import digest
from spraydry.repository import leases
from spraydry.repository.leases import heeded, hold, kept_frames
from spraydry.repository.repository import Repository
from spraydry.repository.writer import Writer


def values(repository: Repository) -> list[str]:
    return [stored.name for stored in repository.store.list("leases")]


def wait_for(what: object) -> None:
    deadline = time.monotonic() + 120
    while not what():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_pins_are_there_while_they_are_held(repository: Repository) -> None:
    with hold(repository, "a mount", pins=[7, 3, 7]) as lease:
        ((_, held),) = heeded(repository).items()
        assert (held.pins, held.writing, held.pid, held.what) == ((3, 7), False, os.getpid(), "a mount")
        assert held.keeps(3, 9) and not held.keeps(4, 9)
        lease.pin([4])
        ((_, held),) = heeded(repository).items()
        assert held.pins == (4,)
        with hold(repository, "a mount of all", since=5):
            assert {held.keeps(1, 6) for held in heeded(repository).values()} == {False, True}
            assert not any(held.keeps(1, 5) for held in heeded(repository).values()), "it was gone when that began"
    assert heeded(repository) == {} and values(repository) == []


def test_what_ends_soon_writes_nothing(repository: Repository) -> None:
    with Writer(repository) as writer:
        writer.add(digest(b"a chunk"), b"a chunk", "other")
        writer.finish()
        assert values(repository) == []


def test_a_writer_lists_what_it_stored_from_the_first_heartbeat_on(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.02)
    others = set(threading.enumerate())
    with Writer(repository) as writer:
        for content in (b"one", b"two"):
            writer.add(digest(content), content, "other")
            writer.finish()
            wait_for(lambda: values(repository))
        wait_for(
            lambda: (
                {f.hex() for f in kept_frames(repository, heeded(repository))}
                == {stored.name for stored in repository.store.list("frames")}
            )
        )
        assert [held.writing for held in heeded(repository).values()] == [True]
    left = set(threading.enumerate()) - others
    assert values(repository) == [] and not any(thread.name == "spraydry-lease" for thread in left)


def test_a_lease_that_nobody_has_any_more_is_not_held_on(repository: Repository) -> None:
    others = set(threading.enumerate())
    lease = leases.Lease(repository, "dropped", writing=True)
    (beating,) = set(threading.enumerate()) - others
    del lease
    gc.collect()
    beating.join(60)
    assert not beating.is_alive()


def test_the_lease_of_a_killed_process_of_this_machine_is_forgotten_at_once(repository_path: str) -> None:
    program = (
        "import sys, os, signal\n"
        "from spraydry.repository.repository import Repository\n"
        "from spraydry.repository.leases import hold\n"
        f"with Repository.open({repository_path!r}, create=True) as r, hold(r, 'x', pins=[1], writing=True) as lease:\n"
        "    lease.frames([b'f' * 32])\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    with Repository.open(repository_path) as repository:
        assert len(values(repository)) == 2
        assert heeded(repository) == {} and values(repository) == []


def test_a_lease_of_elsewhere_is_dead_when_it_did_not_move_for_long(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(leases.time, "monotonic", lambda: now)
    monkeypatch.setattr(leases, "_host", lambda: b"a" * 32)
    lease = leases.Lease(repository, "far away", pins=[2], writing=True)
    lease.frames([b"f" * 32])
    lease._beat()
    monkeypatch.setattr(leases, "_host", lambda: b"b" * 32)
    assert len(heeded(repository)) == 1
    now += leases.DEAD_AFTER_S - 1
    assert len(heeded(repository)) == 1
    lease._beat()
    now += 30
    assert len(heeded(repository)) == 1, "it moved"
    now += leases.DEAD_AFTER_S - 1
    assert len(heeded(repository)) == 1
    monkeypatch.setattr(leases, "_host", lambda: b"c" * 32)
    now += 2
    assert len(heeded(repository)) == 1, "the observer was started again: its clock says nothing of before"
    now += leases.DEAD_AFTER_S + 1
    assert heeded(repository) == {} and values(repository) == []
    lease.close()


def test_values_that_are_no_leases_are_heeded_until_they_are_old(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(leases.time, "monotonic", lambda: now)
    repository.store.put("leases", "strange", b"\xffnot a lease")
    repository.store.put("leases", "strange.1", b"too short")
    repository.store.put("leases", "gone.1", b"f" * 32)
    ((name, held),) = heeded(repository).items()
    assert name == "strange" and held.keeps(1, 2) and held.writing
    assert list(kept_frames(repository, [name])) == []
    assert values(repository) == ["strange", "strange.1"]
    now = leases.DEAD_AFTER_S + 1
    assert heeded(repository) == {} and values(repository) == []


def test_a_repository_that_is_only_read_has_no_leases_of_its_own(repository_path: str, tmp_path: Path) -> None:
    with Repository.open(repository_path, create=True):
        pass
    with Repository.open(repository_path, read_only=True) as reading, hold(reading, "a mount", pins=[1]) as lease:
        lease.pin([2])
        assert values(reading) == [] and heeded(reading) == {}
