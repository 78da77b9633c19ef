"""Tokens: what they give, how they are kept, and how a running server follows their file."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spraydry.cli import run
from spraydry.errors import NotFound, SprayDryError, StoreReadOnly, UsageError
from spraydry.web.grant import EVERYTHING, NOTHING, RIGHTS, Grant, Refused, Rule, check_patterns, parse_rights
from spraydry.web.guard import links, tokenfile
from spraydry.web.guard.tokenfile import Given
from spraydry.web.guard.tokens import Tokens
from tests.web.serving import serving


def _grant(*given: Given, read_only: bool = False) -> Grant:
    return Grant(tuple(one.rule() for one in given), "someone", read_only=read_only)


def test_rights_are_for_what_the_patterns_name() -> None:
    grant = _grant(
        Given(("list", "read"), roots=("photos*", "x"), hoards=("in*ox",)), Given(("add",), hoards=("inbox",))
    )
    assert grant.allows("read", root="photos")
    assert grant.allows("read", root="photos-2024")
    assert grant.allows("read", root="x")
    assert not grant.allows("read", root="xy")
    assert not grant.allows("read", root="my-photos")
    assert not grant.allows("add", root="photos")
    assert grant.allows("add", hoard="inbox")
    assert not grant.allows("overwrite", hoard="inbox")
    assert not grant.allows("add", hoard="indox")
    assert not grant.allows("read", namespace="frames")
    assert not grant.allows("read", namespace="photos")
    assert grant.allows("read", root="photos", hoard="inbox")
    assert not grant.allows("read", root="photos", hoard="other")
    assert not grant.allows("read"), "that is everything"


def test_a_rule_without_patterns_is_for_everything() -> None:
    grant = _grant(Given(("read",)))
    assert grant.allows("read")
    assert grant.allows("read", root="any", hoard="any", namespace="frames")
    assert not grant.allows("list")
    assert all(EVERYTHING.allows(right) for right in RIGHTS)
    assert not any(NOTHING.allows(right, root="x") for right in RIGHTS)


def test_what_is_refused_says_whether_a_token_would_help() -> None:
    with pytest.raises(Refused) as unknown:
        NOTHING.require("read", root="photos")
    assert not unknown.value.known
    with pytest.raises(Refused) as known:
        _grant(Given(("read",), roots=("a",))).require("read", root="b")
    assert known.value.known and "this token" in str(known.value)
    with pytest.raises(Refused, match="whoever has no token"):  # as --anyone says, where there are no tokens
        Grant((Given(("read",)).rule(),)).require("add")


def test_a_read_only_server_takes_nothing() -> None:
    grant = _grant(Given(RIGHTS, roots=("a",)), read_only=True)
    grant.require("read", root="a")
    assert not grant.allows("add", root="a")
    with pytest.raises(StoreReadOnly):
        grant.require("add", root="a")
    with pytest.raises(Refused):  # who may not anyway does not learn what the server takes
        grant.require("add", root="b")


@given(st.text(st.characters(codec="utf-8"), max_size=20), st.text(st.characters(codec="utf-8"), max_size=20))
def test_only_a_star_means_more_than_itself(pattern: str, name: str) -> None:
    rule = Rule(frozenset({"read"}), roots=(pattern,))
    if "*" not in pattern:
        assert bool(rule.matches[1](name)) == (pattern == name)
    assert rule.matches[1](pattern.replace("*", name))


@pytest.mark.parametrize("text", ["", "read,", "reading", "read list", "all"])
def test_rights_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        parse_rights(text)


@pytest.mark.parametrize("pattern", ["", "a b", "a,b", "a\n", "x" * 256])
def test_patterns_that_are_none(pattern: str) -> None:
    with pytest.raises(UsageError):
        check_patterns([pattern])


# -- the file


def test_the_secret_is_not_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    made, secret = tokenfile.add(path, "laptop", [Given(("read",))])
    assert path.stat().st_mode & 0o777 == 0o600
    assert secret not in path.read_text()
    tokens = Tokens(path)
    assert tokens.find(secret.encode()) == made
    assert tokens.find(secret.encode()[:-1]) is None
    assert tokens.find(b"") is None
    assert tokens.find(made.secret.encode()) is None


def test_a_token_that_is_over(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    _, over = tokenfile.add(path, "over", [Given(("read",))], expires=int(time.time()) - 1)
    _, good = tokenfile.add(path, "good", [Given(("read",))], expires=int(time.time()) + 100)
    tokens = Tokens(path)
    assert tokens.find(over.encode()) is None
    assert tokens.named("over") is None
    assert tokens.find(good.encode()) is not None


def test_names_are_used_once(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    tokenfile.add(path, "laptop", [Given(("read",))])
    with pytest.raises(UsageError, match="laptop"):
        tokenfile.add(path, "laptop", [Given(("read",))])
    tokenfile.revoke(path, "laptop")
    with pytest.raises(NotFound):
        tokenfile.revoke(path, "laptop")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"format":1,"key":"00","tokens":[]}', '{"format":1,"key":"zz","tokens":[]}', "\xff"]
)
def test_files_that_hold_no_tokens(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_bytes(text.encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(SprayDryError, match=r"tokens\.json"):
        tokenfile.read(path)


def test_files_that_others_can_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    tokenfile.add(path, "laptop", [Given(("read",))])
    path.chmod(0o640)
    with pytest.raises(SprayDryError, match="chmod 600"):
        tokenfile.read(path)
    with pytest.raises(SprayDryError, match="directory"):
        tokenfile.read(tmp_path)


# -- links


@given(
    st.binary(min_size=32, max_size=32),
    st.text(st.characters(codec="utf-8", exclude_categories=("C",)), max_size=20).map(lambda text: "/" + quote(text)),
    st.sampled_from(["", "archive=tar", "a=b&c=d"]),
    st.integers(0, 10**11),
    st.sampled_from(["", "laptop"]),
)
def test_links_are_good_for_what_they_name_until_they_expire(
    key: bytes, path: str, query: str, expires: int, by: str
) -> None:
    signed = links.sign(key, f"{path}?{query}" if query else path, expires, by)
    there, _, asked = signed.partition("?")
    path_there, query_there = there.encode(), asked.encode()
    assert links.check(key, path_there, query_there, expires - 1) == by
    assert links.check(key, path_there, query_there, expires) is None
    assert links.check(key, path_there + b"x", query_there, expires - 1) is None
    assert links.check(key, path_there, b"more=1&" + query_there, expires - 1) is None
    assert links.check(key, path_there, query_there + b"&more=1", expires - 1) is None
    assert links.check(key[::-1] + b"x", path_there, query_there, expires - 1) is None
    if by:
        assert links.check(key, path_there, query_there.replace(b"&by=laptop", b""), expires - 1) is None
        assert links.check(key, path_there, query_there.replace(b"laptop", b"other"), expires - 1) is None


# -- a server that uses them


def _status(url: str, secret: str | None = None, scheme: str = "Bearer", **headers: str) -> int:
    if secret is not None:
        headers["Authorization"] = f"{scheme} {secret}"
    try:
        with urlopen(Request(url, headers=headers)) as answer:
            return int(answer.status)
    except HTTPError as error:
        error.close()
        return error.code


def test_a_server_follows_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tokens.json"
    assert run(["token", "add", "laptop", "--tokens", str(path), "--rights", "read,list", "--json"]) == 0
    secret = json.loads(capsys.readouterr().out)["secret"]
    with serving(tmp_path, "--tokens", str(path), SPRAYDRY_REPO=str(tmp_path / "r.sqlite")) as server:
        nowhere = f"{server.url}/nothing-here"
        assert _status(f"{server.url}/healthz") == 200
        assert _status(nowhere) == 401
        assert _status(nowhere, "wrong") == 401
        assert _status(nowhere, secret) == 404
        assert _status(nowhere, base64.b64encode(f"anybody:{secret}".encode()).decode(), "Basic") == 404
        assert _status(nowhere, base64.b64encode(b"anybody:wrong").decode(), "Basic") == 401
        assert _status(nowhere, "%%%", "Basic") == 401
        assert _status(nowhere, secret, "Digest") == 401
        assert run(["token", "add", "other", "--tokens", str(path), "--json"]) == 0
        other = json.loads(capsys.readouterr().out)["secret"]
        _until(lambda: _status(nowhere, other) == 404)
        assert _status(nowhere, secret) == 404
        assert run(["token", "revoke", "laptop", "--tokens", str(path)]) == 0
        _until(lambda: _status(nowhere, secret) == 401)
        path.write_text("half a file")
        _until(lambda: _status(nowhere, other) and "stay as they were" in server.log.read_text())
        assert _status(nowhere, other) == 404, "a file that is being written does not lock everybody out"
        os.unlink(path)
        _until(lambda: _status(nowhere, other) == 401)
        assert server.end() == 0
    assert secret not in server.log.read_text()


def _until(seen, seconds: float = 300.0) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.05)
