"""Who lacks rights: every route there is, asked without a token, with a wrong one, and with too few rights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route

from spraydry.actions.ingest import ingest
from spraydry.repository.repository import Repository
from spraydry.web.app import application
from spraydry.web.served import Served
from tests.web.asking import Answer, Asker, ask, token
from tests.web.serving import Running, serving

SECRETS = (b"hidden-root", b"hidden-name", b"hidden content", b"hidden-key")
_METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH")
_EVERYBODY = ("/healthz",)


@dataclass
class Guarded:
    server: Running
    url: str
    tokens: Path
    paths: list[str]
    asker: Asker

    def ask(self, method: str, path: str, body: bytes | None = None, token: str | None = None) -> Answer:
        """Over a connection that is kept, for there are many questions."""
        return self.asker.ask(method, path, body, token=token)


def _paths(routes: Iterable[BaseRoute], before: str = "") -> Iterator[str]:
    """Every path that a route has, with what is hidden, and what is not there, in place of what varies."""
    for route in routes:
        if isinstance(route, Mount):
            yield from _paths(route.routes, before + route.path)
        elif isinstance(route, Route):
            for fill in ("hidden-root@v1", "absent", "frames", "0" * 64):
                yield before + re.sub(r"\{(\w+)(:\w+)?\}", fill, route.path)
            yield f"{before}{route.path}?q=hidden&root=hidden-root&path=hidden-name.txt&left=hidden-root@v1&right=x"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    source = folder / "source"
    source.mkdir()
    (source / "hidden-name.txt").write_bytes(b"hidden content, to be seen by few")
    url = str(folder / "repository.sqlite")
    with Repository.open(url, create=True) as repository:
        ingest(repository, [str(source)], root="hidden-root")
        ingest(repository, [str(source)], root="shown-root")
        app = application([Served(repository)])
        assert isinstance(app, Starlette)
        paths = [*dict.fromkeys(_paths(app.routes))]
    paths += [
        "/hidden-root@v1/hidden-name.txt",
        "/hidden-root@v1/",
        "/hidden-root@v1/?archive=tar",
        "/hidden-root",
        "/absent@v1/hidden-name.txt",
        "/shown-root@v1/../hidden-root@v1/hidden-name.txt",
        "/shown-root@v1/%2e%2e/hidden-root@v1/hidden-name.txt",
        "/shown-root@v1/..%2f..%2fhidden-root@v1/hidden-name.txt",
        "//hidden-root@v1/hidden-name.txt",
        "/%68idden-root@v1/hidden-name.txt",
        "/metrics",
    ]
    tokens = folder / "tokens.json"
    token(tokens, "owner", "list", "read", "add", "overwrite", "delete")
    with serving(folder / "run", "--tokens", str(tokens), SPRAYDRY_REPO=url) as server:
        asker = Asker(server.port)
        yield Guarded(server, url, tokens, paths, asker)
        asker.close()


def _shows(body: bytes, path: str) -> list[bytes]:
    """What is hidden and yet in an answer, beyond what the question said."""
    return [secret for secret in SECRETS if secret in body and secret.decode() not in path.replace("%68", "h")]


def test_without_a_token_every_route_says_the_same(guarded: Guarded) -> None:
    assert len(guarded.paths) > 40
    for secret in (None, "wrong"):
        bodies = set()
        for path in guarded.paths:
            for method in _METHODS:
                answer = guarded.ask(method, path, token=secret)
                if path.partition("?")[0] in _EVERYBODY:
                    assert answer.status in {200, 405}, (method, path)
                    continue
                assert answer.status == 401, (method, path, answer.body)
                assert answer.headers["cache-control"] == "no-store"
                if method != "HEAD":
                    bodies.add(answer.body)
        assert len(bodies) == 1, bodies


def test_rights_to_one_root_tell_nothing_of_others(guarded: Guarded) -> None:
    secret = token(guarded.tokens, "one-root", "list", "read", roots=("shown-root",))
    _wait_for(guarded, secret)
    assert ask(guarded.server.port, "GET", "/shown-root@v1/hidden-name.txt", token=secret).status == 200
    for path in guarded.paths:
        for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
            answer = guarded.ask(method, path, token=secret)
            assert answer.status < 500, (method, path, answer.body)
            if "shown" not in path:
                hidden = [one for one in _shows(answer.body, path) if one != b"hidden-name"]
                assert not hidden, (method, path, answer.body)
            if method not in {"GET", "HEAD"}:
                assert answer.status >= 400, (method, path)
    there = ask(guarded.server.port, "GET", "/hidden-root@v1/hidden-name.txt", token=secret)
    absent = ask(guarded.server.port, "GET", "/absent-root@v1/hidden-name.txt", token=secret)
    assert there.status == absent.status == 403
    assert there.body == absent.body


def test_rights_to_a_hoard_open_nothing_else(guarded: Guarded) -> None:
    secret = token(guarded.tokens, "one-hoard", "list", "read", "add", "overwrite", "delete", hoards=("inbox",))
    _wait_for(guarded, secret)
    for path in guarded.paths:
        for method in ("GET", "PUT", "POST", "DELETE"):
            answer = guarded.ask(method, path, token=secret)
            assert answer.status < 500, (method, path, answer.body)
            assert not _shows(answer.body, path), (method, path, answer.body)


def test_who_can_only_add_destroys_nothing(guarded: Guarded) -> None:
    secret = token(guarded.tokens, "adding", "list", "read", "add")
    _wait_for(guarded, secret)
    with Repository.open(guarded.url, read_only=True) as repository:
        names = {
            namespace: [stored.name for stored in repository.store.list(namespace)]
            for namespace in ("frames", "index", "log", "dictionaries", "config")
        }
    for namespace, held in names.items():
        for name in held:
            path = f"/v1/values/{namespace}/{name}"
            for method, body in (("DELETE", None), ("PUT", b""), ("PUT", b"other bytes")):
                assert guarded.ask(method, path, body, token=secret).status >= 400, (method, path)
    for path in guarded.paths:
        for method in ("PUT", "POST", "DELETE"):
            assert guarded.ask(method, path, b"", token=secret).status < 500, (method, path)
    with Repository.open(guarded.url, read_only=True) as repository:
        for namespace, held in names.items():
            assert {*held} <= {stored.name for stored in repository.store.list(namespace)}
        with repository.open_file("hidden-root:hidden-name.txt") as file:
            assert file.read() == b"hidden content, to be seen by few"


def test_a_link_is_good_for_its_path_only(guarded: Guarded) -> None:
    import time

    from spraydry.web.guard import links, tokenfile

    key = bytes.fromhex(tokenfile.read(guarded.tokens).key)
    soon = int(time.time()) + 1000
    link = links.sign(key, "/hidden-root@v1/hidden-name.txt", soon)
    port = guarded.server.port
    assert ask(port, "GET", link).body == b"hidden content, to be seen by few"
    assert ask(port, "HEAD", link).status == 200
    for method in ("PUT", "POST", "DELETE", "OPTIONS", "PATCH"):
        assert ask(port, method, link, b"").status == 401
    assert ask(port, "GET", link.replace("hidden-name.txt", "")).status == 401
    assert ask(port, "GET", link + "0").status == 401
    assert ask(port, "GET", link.replace("?", "?archive=tar&")).status == 401
    assert ask(port, "GET", links.sign(key, "/hidden-root@v1/hidden-name.txt", int(time.time()) - 1)).status == 401
    secret = token(guarded.tokens, "signer", "read", roots=("shown-root",))
    _wait_for(guarded, secret)
    mark = tokenfile.named(guarded.tokens, "signer").secret
    signed = links.sign(key, "/shown-root@v1/hidden-name.txt", soon, "signer", mark)
    assert ask(port, "GET", signed).status == 200
    assert ask(port, "GET", links.sign(key, "/shown-root@v1/hidden-name.txt", soon, "signer")).status == 401
    assert ask(port, "GET", links.sign(key, "/hidden-root@v1/hidden-name.txt", soon, "signer", mark)).status == 403
    assert ask(port, "GET", links.sign(key, "/shown-root@v1/hidden-name.txt", soon, "nobody")).status == 401
    assert ask(port, "PUT", links.sign(key, "/v1/values/frames/x", soon), b"").status == 401
    tokenfile.revoke(guarded.tokens, "signer")
    _wait_for(guarded, token(guarded.tokens, "signer", "list", "read"))  # another one of that name
    assert ask(port, "GET", signed).status == 401


def test_pages_of_others_change_nothing(guarded: Guarded) -> None:
    secret = token(guarded.tokens, "browser", "list", "read", "add", "overwrite", "delete")
    _wait_for(guarded, secret)
    path = "/v1/values/frames/absent"
    port = guarded.server.port
    for origin in ("http://elsewhere.example", "null", "http://["):
        assert ask(port, "DELETE", path, token=secret, Origin=origin).status == 403
    assert ask(port, "DELETE", path, token=secret, Origin=guarded.server.url).status < 400


def test_names_of_other_machines_mean_nothing_here(tmp_path: Path) -> None:
    with serving(tmp_path, SPRAYDRY_REPO=str(tmp_path / "r.sqlite")) as server:
        for host in ("localhost", "127.0.0.1", f"127.0.0.1:{server.port}", "[::1]:80", "LOCALHOST:1", "a.localhost"):
            assert ask(server.port, "GET", "/v1/", Host=host).status == 200, host
        for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:9876", "10.0.0.1", ""):
            assert ask(server.port, "GET", "/v1/", Host=host).status in {400, 403}, host


def test_several_repositories_each_with_its_rights(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with Repository.open(str(tmp_path / f"{name}.sqlite"), create=True) as repository:
            ingest(repository, [__file__], root="photos")
    tokens = tmp_path / "tokens.json"
    both = token(tokens, "both", "list", "read")
    first = token(tokens, "first", "list", "read", repositories=("one",))
    served = [f"{name}={tmp_path / name}.sqlite" for name in ("one", "two")]
    with serving(tmp_path / "run", *served, "--tokens", str(tokens)) as server:
        where = "photos@v1/" + Path(__file__).name
        for path, secret, status in (
            (f"/one/{where}", both, 200),
            (f"/two/{where}", both, 200),
            (f"/one/{where}", first, 200),
            (f"/two/{where}", first, 403),
            (f"/three/{where}", first, 403),
            (f"/{where}", both, 404),
            (f"/one/../two/{where}", first, 404),
            (f"/one/%2e%2e/two/{where}", first, 404),
            ("/metrics", both, 200),
            ("/metrics", first, 403),
        ):
            assert ask(server.port, "GET", path, token=secret).status == status, path


def _wait_for(guarded: Guarded, secret: str) -> None:
    """Until the server knows a token that was made just now."""
    import time

    deadline = time.monotonic() + 300
    while ask(guarded.server.port, "GET", "/v1/", token=secret).status == 401:
        assert time.monotonic() < deadline
        time.sleep(0.05)
