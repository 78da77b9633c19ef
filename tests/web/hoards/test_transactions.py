"""Transactions over HTTP: seen inside, not outside; whatever ends their connection aborts them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spraydry import Hoard
from tests.web.hoards.talking import Held, ask, key, keys, transaction
from tests.web.serving import Running, serving


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with serving(tmp_path, SPRAYDRY_REPO=str(tmp_path / "repository.sqlite")) as running:
        yield running


def within(held: Held) -> dict[str, str]:
    return {"Spraydry_Transaction": held.name}


def ended(server: Running, held: Held) -> None:
    """Wait until the server knows it no more."""
    until = time.monotonic() + 300
    while ask(server, "GET", key("x"), **within(held)).json["kind"] != "NotFound":
        assert time.monotonic() < until
        time.sleep(0.02)


def test_own_writes_are_seen_inside_and_nothing_outside(server: Running) -> None:
    ask(server, "PUT", key("old"), b"old")
    with transaction(server) as held:
        inside = within(held)
        assert ask(server, "PUT", key("a"), b"1" * 10, **inside).status == 201
        assert ask(server, "PUT", key("large"), b"2" * (3 << 20), **inside).status == 201
        assert ask(server, "DELETE", key("old"), **inside).status == 204
        assert ask(server, "GET", key("a"), **inside).body == b"1" * 10
        assert ask(server, "GET", key("large"), Range="bytes=-4", **inside).body == b"2222"
        assert ask(server, "GET", key("old"), **inside).status == 404
        page = ask(server, "GET", "/v1/hoards/photos/keys", **inside).json
        assert [file["key"] for file in page["files"]] == ["a", "large"]
        assert keys(server) == ["old"] and ask(server, "GET", key("a")).status == 404
        assert ask(server, "POST", held.path + "/prepare").json["state"] == "prepared"
        assert keys(server) == ["old"]
        done = ask(server, "POST", held.path + "/commit").json
        assert done["state"] == "committed" and held.rest() == done
    assert keys(server) == ["a", "large"]


def test_abort(server: Running) -> None:
    with transaction(server) as held:
        ask(server, "PUT", key("a"), b"1", **within(held))
        assert ask(server, "POST", held.path + "/abort").json["state"] == "aborted"
        assert held.rest()["state"] == "aborted"
    ended(server, held)
    assert keys(server) == []
    assert ask(server, "POST", held.path + "/commit").status == 404


def test_a_connection_that_drops_aborts(server: Running) -> None:
    held = Held(server)
    assert ask(server, "PUT", key("a"), b"1", **within(held)).status == 201
    held.drop()
    ended(server, held)
    assert keys(server) == []
    assert ask(server, "PUT", key("a"), b"1", **within(held)).status == 404


def test_two_transactions_on_one_key(server: Running) -> None:
    with transaction(server) as one, transaction(server) as other:
        for held in (one, other):
            assert ask(server, "PUT", key("a"), held.name.encode(), **within(held)).status == 201
        assert ask(server, "POST", one.path + "/commit").status == 200
        for verb in ("prepare", "commit"):
            refused = ask(server, "POST", f"{other.path}/{verb}")
            assert refused.status == 409 and refused.json["kind"] == "Conflict"
            assert "changed by another transaction" in refused.json["error"]
        assert other.rest()["state"] == "aborted"
    assert ask(server, "GET", key("a")).body == one.name.encode()


def test_a_put_outside_conflicts_too(server: Running) -> None:
    with transaction(server) as held:
        assert ask(server, "GET", key("a"), **within(held)).status == 404
        ask(server, "PUT", key("b"), b"1", **within(held))
        ask(server, "PUT", key("a"), b"other")
        assert ask(server, "POST", held.path + "/commit").status == 409
    assert keys(server) == ["a"]


def test_names_that_are_no_transaction(server: Running) -> None:
    with transaction(server) as held:
        for name in ("", "x", "0" * 32, held.name.upper()):
            assert ask(server, "PUT", key("a"), b"", Spraydry_Transaction=name).status == 404
        assert ask(server, "PUT", key("a", "others"), b"", **within(held)).status == 404
        assert ask(server, "POST", f"/v1/hoards/others/transactions/{held.name}/commit").status == 404


def test_there_are_not_too_many(server: Running) -> None:
    held = [Held(server) for _ in range(64)]
    refused = ask(server, "POST", "/v1/hoards/photos/transactions")
    assert refused.status == 503 and "transactions are open" in refused.json["error"]
    for one in held:
        one.drop()
    ended(server, held[-1])
    with transaction(server):
        pass


def test_a_server_that_ends_aborts_at_once(tmp_path: Path) -> None:
    url = str(tmp_path / "repository.sqlite")
    with serving(tmp_path, SPRAYDRY_REPO=url) as server:
        held = Held(server)
        ask(server, "PUT", key("a"), b"1", **within(held))
        assert server.end() == 0
        assert held.rest()["state"] == "aborted", "it was told so, not cut off when the server had waited long enough"
        held.drop()
    with serving(tmp_path, SPRAYDRY_REPO=url) as server:
        held = Held(server)
        ask(server, "PUT", key("a"), b"1", **within(held))
        server.kill()
        held.drop()
    with Hoard("photos", url) as hoard:
        assert list(hoard) == []
        hoard["b"] = b"2"
