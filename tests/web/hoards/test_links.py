"""Links that need no token, and rights: what a token may do with hoards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from spraydry import Hoard
from spraydry.errors import KeyExists, SprayDryError
from tests.web.hoards.talking import ask, key
from tests.web.serving import Running, serving


def spraydry(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from spraydry.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=300)


@dataclass
class Guarded:
    """A server that wants tokens, and these by name."""

    server: Running
    url: str
    file: Path
    secrets: dict[str, str]

    def bearer(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secrets[name]}"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    file, url = folder / "tokens.json", str(folder / "repository.sqlite")
    wanted = {
        "all": ["--rights", "list,read,add,overwrite,delete"],
        "adds": ["--rights", "add", "--hoard", "photos"],
        "reads": ["--rights", "list,read", "--hoard", "photos"],
    }
    secrets = {}
    for name, options in wanted.items():
        made = spraydry("token", "add", name, "--tokens", str(file), "--json", *options)
        assert made.returncode == 0, made.stderr
        secrets[name] = next(value for value in json.loads(made.stdout).values() if str(value).startswith("sd"))
    with Hoard("photos", url, create=True) as hoard:
        hoard["a b/ü.txt"] = b"hello"
        Hoard("secret", repository=hoard.repository)["a"] = b"secret"
    with serving(folder, "--tokens", str(file), SPRAYDRY_REPO=url) as server:
        yield Guarded(server, url, file, secrets)


def test_rights(guarded: Guarded) -> None:
    server, adds, reads = guarded.server, guarded.bearer("adds"), guarded.bearer("reads")
    for method in ("GET", "PUT", "DELETE"):
        assert ask(server, method, key("a b/ü.txt"), b"" if method == "PUT" else None).status == 401
    assert ask(server, "GET", key("a b/ü.txt"), **reads).body == b"hello"
    assert ask(server, "GET", "/v1/hoards", **reads).json == {"hoards": ["photos"]}
    for path in (key("a", "secret"), "/v1/hoards/secret", "/v1/hoards/secret/keys", "/v1/hoards/secret/history/a"):
        assert ask(server, "GET", path, **reads).status == 403
    for method, path in (
        ("PUT", key("new")),
        ("DELETE", key("a b/ü.txt")),
        ("POST", "/v1/hoards/photos/transactions"),
        ("POST", f"/v1/hoards/photos/transactions/{'0' * 32}/commit"),
        ("POST", "/v1/hoards/photos/batch"),
        ("PUT", "/v1/files"),
    ):
        assert ask(server, method, path, b"", **reads).status == 403, path
    assert ask(server, "PUT", key("added"), b"1", **adds).status == 201
    overwritten = ask(server, "PUT", key("added"), b"2", **adds)
    assert overwritten.status == 403 and "overwrite" in overwritten.json["error"]
    assert ask(server, "DELETE", key("added"), **adds).status == 403
    assert ask(server, "GET", key("added"), **adds).status == 403
    assert ask(server, "GET", key("added"), **guarded.bearer("all")).body == b"1"


def test_what_a_token_that_only_adds_can_do_in_a_transaction(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPRAYDRY_TOKEN", guarded.secrets["adds"])
    with Hoard("photos", guarded.server.url) as hoard:
        change = hoard.transaction()
        with open(guarded.file, "rb") as stream:
            change.put(stream, "within")
        with pytest.raises(SprayDryError, match="right to overwrite"), open(guarded.file, "rb") as stream:
            change.put(stream, "a b/ü.txt")
        with pytest.raises(SprayDryError, match="right to delete"):
            change.delete("a b/ü.txt")
        change.commit()
        with pytest.raises(SprayDryError, match="right to overwrite"):
            hoard["within"] = b"again"
        with pytest.raises(KeyExists):
            hoard.put(b"again", "within", new=True)


def test_a_link_from_a_server(guarded: Guarded) -> None:
    made = spraydry("--repo", guarded.server.url, "url", "photos/a b/ü.txt", SPRAYDRY_TOKEN=guarded.secrets["reads"])
    assert made.returncode == 0, made.stderr
    path = made.stdout.strip().removeprefix(guarded.server.url)
    assert path.startswith("/hoards/photos/a%20b/%C3%BC.txt?")
    assert ask(guarded.server, "GET", path).body == b"hello"
    assert ask(guarded.server, "GET", path, Range="bytes=1-2").body == b"el"
    assert ask(guarded.server, "GET", path.partition("?")[0]).status == 401
    assert ask(guarded.server, "GET", path.replace("photos", "secret")).status == 401
    assert ask(guarded.server, "GET", path[:-1] + ("0" if path[-1] != "0" else "1")).status == 401
    assert ask(guarded.server, "DELETE", path).status == 401
    refused = spraydry("--repo", guarded.server.url, "url", "secret/a", SPRAYDRY_TOKEN=guarded.secrets["reads"])
    assert refused.returncode != 0 and "right to read" in refused.stderr


def test_a_link_that_was_signed_here(guarded: Guarded) -> None:
    url = guarded.server.url
    options = ["url", "photos/a b/ü.txt", "--server", url, "--tokens", str(guarded.file)]
    made = spraydry("--repo", guarded.url, *options, "--expires", "1s", "--json")
    assert made.returncode == 0, made.stderr
    path = json.loads(made.stdout)["url"].removeprefix(url)
    until = time.monotonic() + 300
    assert ask(guarded.server, "GET", path).status in (200, 401)
    while ask(guarded.server, "GET", path).status != 401:
        assert time.monotonic() < until
        time.sleep(0.1)
    made = spraydry("--repo", guarded.url, *options)
    assert ask(guarded.server, "GET", made.stdout.strip().removeprefix(url)).body == b"hello"


@pytest.mark.parametrize(
    "options, said",
    [
        (["photos/a b/ü.txt"], "--server"),
        (["photos/missing", "--server", "http://localhost:1"], "is not there"),
        (["photos", "--server", "http://localhost:1"], "HOARD/KEY"),
        (["photos/a b/ü.txt", "--server", "ftp://x"], "not the address of a server"),
        (["photos/a b/ü.txt", "--server", "http://x", "--expires", "0s"], "none"),
        (["photos/a b/ü.txt", "--tokens", "t.json"], "name the server"),
        (["photos/a b/ü.txt", "--server", "http://x", "--tokens", "/nonexistent"], "/nonexistent"),
    ],
)
def test_what_cannot_be_linked(guarded: Guarded, options: list[str], said: str) -> None:
    refused = spraydry("--repo", guarded.url, "url", *options)
    assert refused.returncode != 0 and said in refused.stderr and len(refused.stderr.splitlines()) == 1


def test_several_repositories_below_their_names(tmp_path: Path) -> None:
    urls = [str(tmp_path / f"{name}.sqlite") for name in "ab"]
    for name, url in zip("ab", urls, strict=True):
        with Hoard("photos", url, create=True) as hoard:
            hoard["x/y"] = name.encode()
    with serving(tmp_path, f"a={urls[0]}", f"b={urls[1]}") as server:
        for name in "ab":
            with Hoard("photos", f"{server.url}/{name}") as hoard:
                assert hoard["x/y"].read() == name.encode()
                link = hoard.url("x/y").removeprefix(server.url)
                assert link == f"/{name}/hoards/photos/x/y"
                assert ask(server, "GET", link).body == name.encode()
        assert ask(server, "GET", "/v1/hoards/photos/keys").status == 404
