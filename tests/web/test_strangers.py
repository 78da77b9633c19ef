"""What a server tells those who have few rights, pages of other servers, and proxies that read requests otherwise."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from spraydry.actions.hoard import Hoard
from spraydry.actions.ingest import ingest
from spraydry.format.digest import digest
from spraydry.format.entry import Runs
from spraydry.repository.repository import Repository
from spraydry.web.grant import Grant, Right, Rule
from tests.versions import make_version
from tests.web.asking import Answer, Asker, ask, token
from tests.web.serving import serving
from tests.web.uploads import ALL, directory_of, sender, version

CONTENT = b"content of a file that is to be seen by few"
HTML = "text/html,*/*;q=0.8"


@dataclass
class Site:
    port: int
    digests: list[str]
    owner: str
    narrow: str  # everything of what is called mine
    listing: str
    reading: str

    def get(self, path: str, secret: str, **headers: str) -> Answer:
        return ask(self.port, "GET", path, token=secret, **headers)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("strangers")
    source = folder / "source"
    (source / "below").mkdir(parents=True)
    (source / "hidden-file.txt").write_bytes(CONTENT)
    (source / "below" / "long.bin").write_bytes(bytes(range(256)) * 1500)
    url = str(folder / "r.sqlite")
    with Repository.open(url, create=True) as repository:
        for root in ("hidden-root", "mine"):
            ingest(repository, [str(source)], root=root, name="hidden-version" if root == "hidden-root" else "v1")
        for name in ("hidden-hoard", "mine"):
            with Hoard(name, repository=repository) as hoard:
                hoard.put(CONTENT, "some/key")
        found = [repository.resolve(f"mine:{path}") for path in ("hidden-file.txt", "below/long.bin", "below", "")]
        digests = []
        for one in found:
            content = one.entry.content
            if one.entry.file_digest is not None:
                digests.append(one.entry.file_digest.hex())
            digests += [getattr(content, name).hex() for name in ("manifest", "digest") if hasattr(content, name)]
    tokens = folder / "tokens.json"
    secrets = [
        token(tokens, "owner", "list", "read"),
        token(tokens, "narrow", "list", "read", "add", "overwrite", "delete", roots=("mine*",), hoards=("mine*",)),
        token(tokens, "listing", "list"),
        token(tokens, "reading", "read"),
    ]
    with serving(folder / "run", "--tokens", str(tokens), SPRAYDRY_REPO=url) as server:
        yield Site(server.port, digests, *secrets)


@pytest.mark.parametrize("accept", [HTML, "*/*"])
def test_what_is_not_there_is_no_way_to_names_of_others(site: Site, accept: str) -> None:
    paths = [
        *("/mine-not@v1/a", "/mine-not", "/-/roots/mine-not", "/-/history/mine-not", "/-/view/mine-not/a"),
        *("/-/space/mine-not", "/-/compare?from=mine-not@v1", "/-/go?root=mine-not", "/v1/trees/mine-not@v1/"),
        *("/v1/hoards/mine-not", "/-/hoards/mine-not", "/-/hoards/mine-not/key", "/v1/hoards/mine-not/history/key"),
        *("/-/search?q=file&root=mine-not", "/-/search?q=file&root=other", "/-/search?q=file&root=hidden-not"),
    ]
    for path in paths:
        told = site.get(path, site.narrow, Accept=accept)
        assert told.status in {403, 404} or (told.status == 200 and "keys" in path), (path, told)
        for name in (b"hidden-root", b"hidden-hoard", b"hidden-version"):
            assert name not in told.body, (path, told.body)
    assert b"hidden-root" in site.get("/other@v1/a", site.owner, Accept=accept).body  # who may list all is helped


def test_a_search_tells_no_root_that_is_hidden_from_one_that_is_not_there(site: Site) -> None:
    there, absent = (site.get(f"/-/search?q=a&root={root}", site.narrow) for root in ("hidden-root", "absent-root"))
    assert there.status == absent.status == 404
    assert b"hidden-root" in there.body and b"absent-root" in absent.body


def test_who_may_only_read_is_told_no_names(site: Site) -> None:
    assert site.get("/mine@v1/hidden-file.txt", site.reading).body == CONTENT
    for path in ("/mine@v1/?archive=tar", "/mine@v1/?archive=zip", "/mine@v1/", "/v1/trees/mine@v1/"):
        assert site.get(path, site.reading).status == 403, path
    for path in ("/-/view/mine@v1/hidden-fil", "/-/view/hidden-root@hidden-v/x"):
        told = site.get(path, site.reading, Accept=HTML)
        assert told.status == 404
        assert b"hidden-file" not in told.body and b"hidden-version" not in told.body


def test_who_may_only_list_is_told_no_digests(site: Site) -> None:
    """By its digest a file can be told from others, and had by whoever may add a version that names it."""
    lists = ["/mine@v1/", "/mine@v1/below/", "/v1/trees/mine@v1/", "/v1/trees/mine@v1/below", "/v1/hoards/mine/keys"]
    pages = ["/mine@v1/", "/-/history/mine/hidden-file.txt", "/-/hoards/mine", "/-/space/mine@v1", "/-/roots/mine"]
    for path in lists + pages:
        told = site.get(path, site.listing, Accept=HTML if path in pages else "*/*")
        assert told.status == 200, (path, told)
        for name in site.digests:
            assert name[:16].encode() not in told.body, (path, told.body)
            assert name[:16] not in str(told.headers), (path, told.headers)
    body = json.dumps({"keys": ["some/key"]}).encode()
    told = ask(site.port, "POST", "/v1/hoards/mine/has", body, token=site.listing)
    assert json.loads(told.body)["found"][0]["size"] == len(CONTENT)
    assert json.loads(told.body)["found"][0]["digest"] is None
    for path in ("/mine@v1/", "/v1/trees/mine@v1/", "/v1/hoards/mine/keys"):  # and who may read is told
        assert site.digests[0].encode() in site.get(path, site.owner).body, path
    seen = site.get("/mine@v1/", site.owner).headers["etag"]
    assert site.get("/mine@v1/", site.listing, If_None_Match=seen).status == 200
    assert site.get("/mine@v1/", site.owner, If_None_Match=seen).status == 304


def test_pages_of_other_servers_show_nothing_of_this_machine(tmp_path: Path) -> None:
    """A script of a repository would run in whatever page names it; that a picture loads tells that it is there."""
    (tmp_path / "secret.js").write_text("window.secret = 'for this machine alone'")
    with Repository.open(str(tmp_path / "r.sqlite"), create=True) as repository:
        ingest(repository, [str(tmp_path / "secret.js")], root="code")
    with serving(tmp_path / "run", SPRAYDRY_REPO=str(tmp_path / "r.sqlite")) as server:

        def status(path: str = "/code@v1/secret.js", **headers: str) -> int:
            return ask(server.port, "GET", path, **headers).status

        for place in ("cross-site", "same-site"):
            for kind in ("script", "image", "style", "object", "embed", "empty", "video"):
                assert status(Sec_Fetch_Site=place, Sec_Fetch_Dest=kind, Referer="http://evil.example/") == 403
                assert status(Sec_Fetch_Site=place, Sec_Fetch_Dest=kind) == 403
                assert status("/absent", Sec_Fetch_Site=place, Sec_Fetch_Dest=kind) == 403
            assert status("/", Sec_Fetch_Site=place, Sec_Fetch_Dest="document") == 200  # somebody followed a link
            # What a page of this server shows that is open in a sandbox.
            assert status(Sec_Fetch_Site=place, Sec_Fetch_Dest="image", Referer=f"{server.url}/") == 200
        assert status(Sec_Fetch_Site="same-origin", Sec_Fetch_Dest="script") == 200
        assert status(Sec_Fetch_Site="none", Sec_Fetch_Dest="document") == 200
        assert status() == 200


def test_passwords_that_browsers_send_by_themselves_show_nothing_to_other_pages(site: Site) -> None:
    from base64 import b64encode

    basic = "Basic " + b64encode(f"x:{site.owner}".encode()).decode()
    from_elsewhere = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Dest": "script"}
    path = "/mine@v1/hidden-file.txt"
    assert ask(site.port, "GET", path, Authorization=basic).status == 200
    assert ask(site.port, "GET", path, Authorization=basic, **from_elsewhere).status == 403
    assert ask(site.port, "GET", path, token=site.owner, **from_elsewhere).status == 200  # a program's own doing


def test_a_body_has_one_end(site: Site) -> None:
    """What a proxy that goes by the length takes for a body is another request to a server that goes by the chunks."""
    head = b"POST /v1/batch/has HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n" % site.owner.encode()
    hidden = b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", site.port), 120) as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n" % len(hidden) + hidden)
        told = b""
        while part := connection.recv(65536):
            told += part
    assert told.startswith(b"HTTP/1.1 400 ")
    assert told.count(b"HTTP/1.1 ") == 1, told


def test_a_digest_that_is_not_the_file_s_own_gets_no_other_file(tmp_path: Path) -> None:
    """What lies ready for the web server is found by digest: an entry may say that of a file which others may not
    read, and be of its size."""
    hidden, own = (random.Random(seed).randbytes(1 << 20) for seed in (1, 2))
    plain = tmp_path / "plain"
    with sender(tmp_path, ALL) as client:
        make_version(client.repository, "hidden-root", {b"a.bin": hidden}, "v1")
        make_version(client.repository, "mine", {b"a.bin": own}, "v1")
        entry = client.repository.resolve("mine:a.bin").entry
        assert isinstance(entry.content, Runs)
        lying = msgspec.structs.replace(entry.content, digest=digest(hidden))
        folder, pages = directory_of([msgspec.structs.replace(entry, content=lying)])
        client.store(*pages.values())
        client.grant = Grant((Rule(frozenset[Right]({"list", "read", "add"}), roots=("mine",)),))
        assert client.append(version(folder, "mine", "v2"))
    nginx = {"X_Sendfile_Type": "X-Accel-Redirect"}
    where = ["--accel", "nginx", "--plain", f"{plain}:64M"]
    for _ in range(2):  # also what a server finds that lies there from before
        with serving(tmp_path / "run", *where, SPRAYDRY_REPO=str(tmp_path / "served.sqlite")) as server:
            path = "/hidden-root@v1/a.bin"
            while (told := ask(server.port, "GET", path, **nginx)).headers.get("x-accel-redirect") is None:
                assert told.body == hidden
            assert digest(hidden).hex() in told.headers["x-accel-redirect"]
            for _ in range(3):
                told = ask(server.port, "GET", "/mine@v2/a.bin", **nginx)
                assert "x-accel-redirect" not in told.headers and told.body == own
            assert "x-accel-redirect" in ask(server.port, "GET", path, **nginx).headers


def test_one_token_cannot_keep_others_from_transactions(site: Site, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    greedy, other = (token(tokens, name, "list", "read", "add") for name in ("greedy", "other"))
    url = str(tmp_path / "r.sqlite")
    Repository.open(url, create=True).close()
    with serving(tmp_path / "run", "--tokens", str(tokens), SPRAYDRY_REPO=url) as server:
        held = []
        try:
            answers = []
            for _ in range(70):
                connection = socket.create_connection(("127.0.0.1", server.port), 120)
                held.append(connection)
                asked = "POST /v1/hoards/h/transactions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
                connection.sendall(f"{asked}Authorization: Bearer {greedy}\r\n\r\n".encode())
                answers.append(connection.recv(12))
            assert answers.count(b"HTTP/1.1 200") == 32
            asker = Asker(server.port)
            assert asker.ask("POST", "/v1/hoards/h/transactions", token=other).status == 200
            asker.close()
        finally:
            for connection in held:
                connection.close()
