"""The postgresql store passes the conformance suite on a real server, and stands what can happen to a connection."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from spraydry.errors import (
    NotARepository,
    StoreError,
    StoreNotFound,
    StoreReadOnly,
    StoreUnavailable,
    UsageError,
)
from spraydry.stores import postgresql as backend
from spraydry.stores.base import Store, open_store
from tests.faultproxy import Fault, proxy
from tests.remote_store import LARGE, check_repository, impatient, kill_writers, one_line, opened
from tests.servers import Server, server_or_skip, serving
from tests.store_contract import Place, StoreContract

_fresh = itertools.count()


postgresql = serving("postgresql")
store = opened


@pytest.fixture
def url(postgresql: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a test's store goes; nothing is there yet."""
    postgresql.enter(monkeypatch)
    return f"{postgresql.url}?schema=s{next(_fresh)}"


@pytest.fixture
def administrator(postgresql: Server, url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgresql.url, autocommit=True) as connection:
        yield connection


def schema_of(url: str) -> str:
    return url.rpartition("=")[2]


def password_of(running: Server) -> str:
    return (running.folder / "pgpass").read_text().strip().rpartition(":")[2]


def sessions(administrator: psycopg.Connection[Any]) -> list[int]:
    """The server's processes that serve stores."""
    return [
        pid for (pid,) in administrator.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'spraydry'")
    ]


def runs(process: int) -> bool:
    """Whether it has not ended."""
    try:
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())
    except OSError:
        return False


class TestPostgresql(StoreContract):
    @pytest.fixture
    def place(self, url: str) -> Place:
        return Place(url, atomic_batches=True)


# -- what lies there


def test_the_table(store: Store, url: str, administrator: psycopg.Connection[Any]) -> None:
    store.put("frames", "abc", b"\0" * 100_000)
    columns = administrator.execute(
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull, attstorage, collname FROM pg_attribute"
        " LEFT JOIN pg_collation c ON c.oid = attcollation WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY 1",
        [f"{schema_of(url)}.spraydry_value"],
    ).fetchall()
    assert columns == [
        ("name", "text", True, "x", "C"),
        ("namespace", "text", True, "x", "C"),
        ("value", "bytea", True, "e", None),
    ]


def test_destroy_takes_only_its_own(store: Store, url: str, administrator: psycopg.Connection[Any]) -> None:
    administrator.execute(f"CREATE TABLE {schema_of(url)}.of_others AS SELECT 1 AS one")
    store.destroy()
    assert administrator.execute(f"SELECT one FROM {schema_of(url)}.of_others").fetchone() == (1,)
    open_store(url, create=True).close()


def test_names_that_are_not_ours_are_passed_over(
    store: Store, url: str, administrator: psycopg.Connection[Any]
) -> None:
    store.put("frames", "abc", b"x")
    administrator.execute(
        f"INSERT INTO {schema_of(url)}.spraydry_value VALUES('frames', '../x', 'x'), ('frames', 'B', 'x'),"
        " ('frames', 'ü', 'x'), ('others', 'a', 'x')"
    )
    assert [stored.name for stored in store.list("frames")] == ["abc"]


def test_another_table_of_that_name(url: str, administrator: psycopg.Connection[Any]) -> None:
    administrator.execute(f"CREATE SCHEMA {schema_of(url)}")
    administrator.execute(f"CREATE TABLE {schema_of(url)}.spraydry_value(namespace text, name text, value text)")
    one_line(NotARepository, "is not one of a spraydry repository", lambda: open_store(url, create=True))
    administrator.execute(f"ALTER TABLE {schema_of(url)}.spraydry_value DROP COLUMN value")
    one_line(NotARepository, "is not one of a spraydry repository", lambda: open_store(url))


def test_a_table_that_went(store: Store, url: str, administrator: psycopg.Connection[Any]) -> None:
    store.put("frames", "abc", b"x")
    administrator.execute(f"DROP SCHEMA {schema_of(url)} CASCADE")
    one_line(StoreNotFound, "its table was dropped", lambda: store.get("frames", "abc"))
    one_line(StoreNotFound, "its table was dropped", lambda: store.put("frames", "abc", b"x"))


def test_far_ranges(store: Store) -> None:
    store.put("frames", "abc", b"0123456789")
    for start, length in ((1 << 40, None), (1 << 40, 5), ((1 << 31) - 1, 5), ((1 << 31) - 2, None)):
        assert store.get("frames", "abc", start, length) == b""
    assert store.get("frames", "abc", -(1 << 40), 3) == b"012"
    assert store.get("frames", "abc", 3, 1 << 40) == b"3456789"
    assert store.get("frames", "abc", -3, 1 << 40) == b"789"


def test_many_values_in_a_batch_are_seen_in_it(store: Store) -> None:
    names = [f"{number:03d}" for number in range(50)]
    with store.batch():
        store.put_many("frames", ((name, name.encode()) for name in names))
        assert list(store.get_many("frames", [*names, "missing"])) == [
            *((name, name.encode()) for name in names),
            ("missing", None),
        ]
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: list(store.list("frames"))).result() == []
    assert len(list(store.list("frames"))) == 50


def test_a_whole_repository(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_repository(url, tmp_path, monkeypatch)


# -- connections that break


def test_the_server_goes_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server_or_skip("postgresql", tmp_path / "postgresql") as running:
        running.enter(monkeypatch)
        store = open_store(running.url, create=True)
        store.put("frames", "abcd", LARGE)
        server = int((running.folder / "server/data/postmaster.pid").read_text().split()[0])
        sessions = [int(word) for word in Path(f"/proc/{server}/task/{server}/children").read_text().split()]
        os.kill(server, signal.SIGKILL)
        running.process.wait(120)
        deadline_s = time.monotonic() + 120
        while any(map(runs, sessions)):  # they see it, and end
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
    for ask in (
        lambda: store.get("frames", "abcd"),
        lambda: store.put("frames", "abce", b"x"),
        lambda: list(store.list("frames")),
    ):
        assert one_line(StoreUnavailable, "127.0.0.1", ask).retryable
    with server_or_skip("postgresql", tmp_path / "postgresql"):
        assert store.get("frames", "abcd") == LARGE
        store.put("frames", "abce", b"x")
        assert [stored.name for stored in store.list("frames")] == ["abcd", "abce"]
        store.close()


def test_a_session_ended_in_the_middle_of_a_put(store: Store, administrator: psycopg.Connection[Any]) -> None:
    store.put("frames", "abcd", b"before")

    def values() -> Iterator[tuple[str, bytes]]:
        for number in range(20):
            if number == 10:
                for pid in sessions(administrator):
                    administrator.execute("SELECT pg_terminate_backend(%s)", [pid])
            yield f"abc{number:03d}", LARGE

    assert one_line(StoreUnavailable, "was lost", lambda: store.put_many("frames", values())).retryable
    assert [stored.name for stored in store.list("frames")] == ["abcd"]
    with pytest.raises(StoreUnavailable), store.batch():
        store.delete("frames", ["abcd"])
        for pid in sessions(administrator):
            administrator.execute("SELECT pg_terminate_backend(%s)", [pid])
        store.put("frames", "abce", b"x")
    assert store.get("frames", "abcd") == b"before" and store.info("frames", "abce") is None


def cut_puts(url: str, running: Server) -> int:
    """Cut connections after more and more bytes of a put of two values, and look what is there; how many failed."""
    failed = 0
    with proxy("127.0.0.1", running.port) as network, ExitStack() as stack:
        port = network.address.rpartition(":")[2]
        writer = stack.enter_context(closing(open_store(url.replace(f":{running.port}/", f":{port}/"), create=True)))
        reader = stack.enter_context(closing(open_store(url)))
        old, new = b"old" * 100_000, b"new" * 200_000
        for cut in [1, 100, *range(50_000, 1_400_000, 100_000)]:
            reader.put_many("frames", [("a", old), ("b", old)])
            network.fault = Fault(cut_request=cut, times=1)
            try:
                writer.put_many("frames", [("a", new), ("b", new)])
            except StoreUnavailable as error:
                assert error.retryable and "\n" not in str(error)
                failed += 1
            network.fault = None
            found = [reader.get("frames", name) for name in "ab"]
            assert found in ([old, old], [new, new])
            writer.put("frames", "a", new)  # the next call has a new connection
            assert reader.get("frames", "a") == new
    return failed


def put_by_halves(store: backend.PostgresqlStore, namespace: str, values: Any) -> None:
    """What put_many must not do."""
    with store._connections.one() as connection, store._connections.translated():
        for name, value in values:
            sql = (
                "INSERT INTO {table} AS old VALUES(%s, %s, %b) ON CONFLICT(namespace, name) DO UPDATE SET value = %b",
                "UPDATE {table} SET value = value || %b WHERE namespace = %s AND name = %s",
            )
            half = len(value) // 2
            store._run(connection, sql[0], (namespace, name, value[:half], value[:half]))
            store._run(connection, sql[1], (value[half:], namespace, name))


def through_proxies(running: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """pgpass has the password for one port."""
    monkeypatch.setenv("PGPASSWORD", password_of(running))


def test_a_connection_cut_in_the_middle_of_a_put(url: str, postgresql: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    through_proxies(postgresql, monkeypatch)
    assert cut_puts(url, postgresql) > 5


def test_the_control_of_cut_puts(url: str, postgresql: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing a value in two steps must be caught."""
    through_proxies(postgresql, monkeypatch)
    monkeypatch.setattr(backend.PostgresqlStore, "put_many", put_by_halves)
    with pytest.raises(AssertionError):
        cut_puts(url, postgresql)


def test_a_server_that_hangs(store: Store, administrator: psycopg.Connection[Any]) -> None:
    store.put("frames", "abcd", b"x")
    halted = sessions(administrator)
    assert halted

    def tell(what: signal.Signals) -> None:
        for process in halted:
            with suppress(ProcessLookupError):  # it served a test before, and ends by itself
                os.kill(process, what)

    try:
        tell(signal.SIGSTOP)
        with impatient(0.5):
            assert one_line(StoreUnavailable, "did not answer|lost", lambda: store.get("frames", "abcd")).retryable
    finally:
        tell(signal.SIGCONT)
    assert store.get("frames", "abcd") == b"x"


def test_another_writer_in_the_way(store: Store, url: str, administrator: psycopg.Connection[Any]) -> None:
    store.put("log", "0", b"x")
    with store.batch() as connection:
        assert isinstance(connection, psycopg.Connection)
        connection.execute("SET LOCAL lock_timeout = '100ms'")
        with administrator.transaction():
            administrator.execute(f"INSERT INTO {schema_of(url)}.spraydry_value VALUES('log', '1', 'x')")
            assert one_line(
                StoreUnavailable, "another writer was in the way", lambda: store.create("log", "1", b"y")
            ).retryable
    assert store.get("log", "1") == b"x"


def test_killed_writers(url: str) -> None:
    assert kill_writers(url, 8) > 20


def test_the_control_of_killed_writers(url: str) -> None:
    broken = "import tests.test_store_postgresql as t\nt.backend.PostgresqlStore.put_many = t.put_by_halves"
    with pytest.raises(AssertionError, match="in part"):
        kill_writers(url, 30, broken)


# -- mistakes


def test_bad_urls() -> None:
    for bad, says in (
        ("postgresql://user:secret@host/x", "no password"),
        ("postgres://user:@host/x", "no password"),
        ("postgresql://host/x?password=secret", "no password"),
        ("postgresql://host/x?sslpassword=secret", "no password"),
        ("postgresql://host/x?schema=A", "only .schema=NAME"),
        ("postgresql://host/x?schema=pg_catalog", "only .schema=NAME"),
        ("postgresql://host/x?schema=a;drop", "only .schema=NAME"),
        ("postgresql://host/x?sslmode=disable", "only .schema=NAME"),
        ("postgresql://host/x/y", "cannot be meant"),
        ("postgresql://host/x%00", "holds a NUL"),
    ):
        error = one_line(UsageError, says, lambda bad=bad: open_store(bad, create=True))  # type: ignore[misc]
        assert "secret" not in str(error)


def test_who_is_not_let_in(
    url: str, postgresql: Server, monkeypatch: pytest.MonkeyPatch, administrator: psycopg.Connection[Any]
) -> None:
    monkeypatch.setenv("PGPASSWORD", "wrong")
    error = one_line(StoreError, r"does not let you in: .*password.* belong in ~/.pgpass", lambda: open_store(url))
    assert not error.retryable
    monkeypatch.delenv("PGPASSWORD")
    monkeypatch.setenv("PGPASSFILE", "/dev/null")
    one_line(StoreError, "does not let you in", lambda: open_store(url))
    monkeypatch.setenv("PGPASSWORD", password_of(postgresql))
    one_line(StoreError, "does not let you in", lambda: open_store(url.replace("//spraydry@", "//nobody@")))
    no_database = url.replace("/spraydry?", "/nothing?")
    one_line(StoreNotFound, "there is no database .*createdb", lambda: open_store(no_database, create=True))
    one_line(StoreNotFound, "there is no repository", lambda: open_store(url))


def test_without_rights(
    url: str, postgresql: Server, monkeypatch: pytest.MonkeyPatch, administrator: psycopg.Connection[Any]
) -> None:
    store = open_store(url, create=True)
    store.put("frames", "abc", b"x")
    store.close()
    name = f"reader{next(_fresh)}"
    administrator.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    administrator.execute(f"GRANT USAGE ON SCHEMA {schema_of(url)} TO {name}")
    administrator.execute(f"GRANT SELECT ON {schema_of(url)}.spraydry_value TO {name}")
    monkeypatch.setenv("PGPASSWORD", "secret")
    reader = open_store(url.replace("//spraydry@", f"//{name}@"))
    assert reader.get("frames", "abc") == b"x"
    one_line(StoreReadOnly, "permission denied", lambda: reader.put("frames", "abc", b"y"))
    one_line(StoreReadOnly, "permission denied", lambda: reader.create("log", "1", b"y"))
    elsewhere = url.replace("//spraydry@", f"//{name}@") + "other"
    one_line(StoreReadOnly, "permission denied", lambda: open_store(elsewhere, create=True))
    reader.close()


def test_nobody_there(url: str, postgresql: Server) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused = url.replace(f":{postgresql.port}/", f":{unused.getsockname()[1]}/")
        assert one_line(StoreUnavailable, "cannot be reached.*refused", lambda: open_store(refused)).retryable
    no_host = url.replace("127.0.0.1", "no-such-host.invalid")
    one_line(StoreUnavailable, "cannot be reached", lambda: open_store(no_host))
