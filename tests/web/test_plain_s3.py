"""Handing off: to a real object store, by signed URLs."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from spraydry.errors import CorruptData
from spraydry.format.digest import digest
from spraydry.format.entry import FILE
from spraydry.repository.repository import Repository
from tests.servers import Server
from tests.servers import serving as server_for
from tests.versions import plain_entry
from tests.web.serving import Running, serving
from tests.web.test_files import Got, ask
from tests.web.test_plain import FILES, MIB, TREE, committed

ceph = server_for("ceph")


def redirected(server: Running, path: str, **headers: str) -> Got:
    """The redirect, which comes once the file is in the bucket; until then the file itself."""
    deadline = time.monotonic() + 300  # an upload that failed is begun again after a minute
    while (got := ask(server, path, **headers)).status == 200:
        assert time.monotonic() < deadline
    assert got.status == 307 and got.body == b""
    return got


def fetch(url: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    request = urllib.request.Request(url, headers={key.replace("_", "-"): value for key, value in headers.items()})
    with urllib.request.urlopen(request, timeout=300) as answer:
        return answer.status, answer.read(), {key.lower(): value for key, value in answer.headers.items()}


def test_clients_are_sent_to_the_bucket(ceph: Server, tmp_path: Path) -> None:
    url = committed(tmp_path)
    with serving(tmp_path, "--plain", f"{ceph.url}/some", SPRAYDRY_REPO=url, **ceph.environment) as server:
        where = redirected(server, "/photos@one/0.bin").headers["Location"]
        assert f"/some/plain/{digest(FILES[b'0.bin']).hex()}/application/octet-stream?" in where
        assert fetch(where)[:2] == (200, FILES[b"0.bin"])
        status, body, headers = fetch(where, Range="bytes=1000-1999")
        assert (status, body) == (206, FILES[b"0.bin"][1000:2000])
        assert headers["content-range"] == f"bytes 1000-1999/{MIB}"
        text = redirected(server, "/photos@one/folder/a%20b%FF.txt").headers["Location"]
        _, body, headers = fetch(text)
        assert body == TREE[b"folder"][b"a b\xff.txt"]
        assert headers["content-type"] == "text/plain; charset=utf-8"
        # A client of the usual kind follows by itself.
        assert fetch(f"{server.url}/photos@one/0.bin", Range="bytes=5-9")[:2] == (206, FILES[b"0.bin"][5:10])
        # What could script comes from here, with what keeps it from that; small files and heads, too.
        page = ask(server, "/photos@one/page.html")
        assert page.status == 200 and page.headers["Content-Security-Policy"].startswith("sandbox")
        assert ask(server, "/photos@one/small").body == b"s"
        assert ask(server, "/photos@one/0.bin", "HEAD").headers["Content-Length"] == str(MIB)
        etag = ask(server, "/photos@one/0.bin", "HEAD").headers["ETag"]
        assert ask(server, "/photos@one/0.bin", If_None_Match=etag).status == 304


def test_the_bucket_tells_nobody_without_the_signature(ceph: Server, tmp_path: Path) -> None:
    url = committed(tmp_path)
    with serving(tmp_path, "--plain", ceph.url, SPRAYDRY_REPO=url, **ceph.environment) as server:
        where = redirected(server, "/photos@one/1.bin").headers["Location"]
        for other in (where.partition("?")[0], where.replace("Signature=", "Signature=0")):
            with pytest.raises(urllib.error.HTTPError) as error:
                fetch(other)
            assert error.value.code == 403
            error.value.close()


def test_what_is_not_right_is_not_stored(ceph: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ceph.enter(monkeypatch)
    import obstore

    from spraydry.stores.shared.cloud_clients import client
    from spraydry.web.plain.cloud import Cloud

    bucket = ceph.url.removeprefix("s3://")
    with Repository.open(committed(tmp_path)) as repository:
        cloud = Cloud("s3", bucket, "wrong")
        content = repository.resolve("photos@one:0.bin").entry.content
        lying = plain_entry(b"0.bin", FILE, type(content)(bytes(32), content.manifest, content.filled), MIB)  # type: ignore
        name = f"{bytes(32).hex()}/application/octet-stream"
        with pytest.raises(CorruptData):
            cloud.bring(repository, name, lying, b"application/octet-stream", threading.Event())
        stored = [meta["path"] for page in obstore.list(client("s3", bucket), "wrong/") for meta in page]
        assert stored == []


def test_no_bucket_no_handing_off(tmp_path: Path) -> None:
    """An object store that does not answer delays nothing for long: files come from here."""
    url = committed(tmp_path)
    environment = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_REGION": "us-east-1",
    }
    with serving(tmp_path, "--plain", "s3://bucket/some", SPRAYDRY_REPO=url, **environment) as server:
        began = time.monotonic()
        for _ in range(3):
            assert ask(server, "/photos@one/0.bin").body == FILES[b"0.bin"]
        assert time.monotonic() - began < 60
