"""Stores in buckets pass the conformance suite against a real server (Ceph), and stand what networks do.

gs: and az: have no server here: of them only the URL, the client that is made and missing keys are tested.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from spraydry.actions.verify import verify
from spraydry.errors import (
    CorruptData,
    SprayDryError,
    StoreError,
    StoreFull,
    StoreNotFound,
    StoreReadOnly,
    StoreUnavailable,
    UsageError,
)
from spraydry.repository.repository import Repository
from spraydry.stores.base import Store, Stored, open_store
from tests.faultproxy import Fault, Proxy, http_answer, proxy
from tests.ingest.trees import command, differences, fill, taken, version_of
from tests.remote_store import WRITES_ONCE, commit_together
from tests.servers import Server, server_or_skip
from tests.store_contract import Place, StoreContract

pytest.importorskip("obstore", reason="NOT TESTED: obstore is not installed")
from spraydry.stores import s3
from spraydry.stores.shared import cloud_clients

_numbers = count()
FRAME = random.Random(7).randbytes(1 << 20)


@pytest.fixture(scope="module")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server_or_skip("ceph", tmp_path_factory.mktemp("ceph")) as running:
        yield running


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's keys, and none of their files."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def url(ceph: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a place in the server's bucket where nothing is yet."""
    for name, value in ceph.environment.items():
        monkeypatch.setenv(name, value)
    return f"{ceph.url}/tests/{next(_numbers)}"


@pytest.fixture
def faulty(ceph: Server, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy, and stores opened from now on go through it."""
    at = urlsplit(ceph.environment["AWS_ENDPOINT_URL"])
    assert at.hostname and at.port
    with proxy(at.hostname, at.port) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{running.address}")
        yield running


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that are made from now on give up after a second."""
    second = timedelta(seconds=1)
    monkeypatch.setattr(cloud_clients, "_TIMES", {"connect_timeout": second, "timeout": second})


def one_line(caught: pytest.ExceptionInfo[SprayDryError], *words: str) -> None:
    text = str(caught.value)
    assert "\n" not in text and len(text) < 300, text
    assert all(word in text for word in words), text


class TestS3(StoreContract):
    @pytest.fixture
    def place(self, url: str) -> Place:
        return Place(url)


# -- several repositories in a bucket


def test_repositories_in_one_bucket_do_not_see_each_other(url: str, ceph: Server) -> None:
    places = [ceph.url, *(url + ending for ending in ("/a", "/ab", "/a/b", "/a/listing", "/a/b/probe"))]
    stores = [open_store(place, create=True) for place in places]
    for number, store in enumerate(stores):
        store.put("frames", f"own{number}", b"x" * number)
        assert store.create("log", "1", b"%d" % number)
        store.flush()
    for number, store in enumerate(stores):
        assert list(store.list("frames")) == [Stored(f"own{number}", number)]
        assert (store.stat().values, store.get("log", "1")) == (2, b"%d" % number)
    for number, store in enumerate(stores):
        store.destroy()
        with pytest.raises(StoreNotFound):
            open_store(places[number])
        for other, place in enumerate(places[number + 1 :], number + 1):
            again = open_store(place)
            assert again.get("frames", f"own{other}") == b"x" * other
            again.close()


def test_what_is_foreign_stays(url: str) -> None:
    import obstore

    store = open_store(url, create=True)
    assert isinstance(store, s3.CloudStore)
    store.put("frames", "a", b"x")
    foreign = [store._prefix + name for name in ("frames/UPPER", "frames/a/b", "frames/.hidden", "other", "frames/%41")]
    for path in foreign:
        obstore.put(store._client(), path, b"mine")
    assert [stored.name for stored in store.list("frames")] == ["a"] and store.stat().values == 1
    client = store._client()
    store.destroy()
    left = [meta["path"] for page in obstore.list(client, store._prefix) for meta in page]
    assert sorted(left) == sorted(foreign)


def test_nothing_is_left_of_making_a_place(url: str) -> None:
    import obstore

    store = open_store(url, create=True)
    assert isinstance(store, s3.CloudStore)
    assert list(obstore.list(store._client(), store._prefix)) == []
    store.close()


def test_listing_begins_where_it_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server skips what comes before: of 2500 names only the last page is asked for."""
    store = open_store(url, create=True)
    store.put_many("frames", ((f"{number:05d}", b"") for number in range(2500)))
    real, asked = s3.CloudStore._ask, 0

    def counting(self: s3.CloudStore, function: object, *args: object, **kwargs: object) -> object:
        nonlocal asked
        asked += function is next
        return real(self, function, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(s3.CloudStore, "_ask", counting)
    assert [stored.name for stored in store.list("frames", "02497")] == ["02498", "02499"]
    assert asked == 2  # the page, and that there is no other
    assert next(iter(store.list("frames"))).name == "00000"
    assert asked == 3
    store.close()


def test_listings_without_order_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(url, create=True)
    store.put_many("frames", [("a", b""), ("b", b""), ("c", b"")])
    import obstore

    real = obstore.list
    monkeypatch.setattr(obstore, "list", lambda *a, **k: ([*page][::-1] for page in real(*a, **k)))
    with pytest.raises(StoreError, match="no order") as caught:
        list(store.list("frames"))
    one_line(caught)
    store.close()


def test_values_that_are_too_large(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(url, create=True)
    store.put("frames", "a", bytes(1001))
    monkeypatch.setattr(s3, "_MAX_VALUE_BYTES", 1000)
    for start in (0, -1001):
        with pytest.raises(CorruptData):
            store.get("frames", "a", start)
    assert len(store.get("frames", "a", 1)) == len(store.get("frames", "a", 1, 5000)) == 1000
    store.close()


# -- creating


def test_a_create_whose_answer_is_lost_knows_that_it_won(url: str, faulty: Proxy) -> None:
    store = open_store(url, create=True)
    faulty.fault = Fault(cut_answer=0, times=1)
    assert store.create("log", "1", b"same")
    assert faulty.struck == 1
    assert not store.create("log", "1", b"same")
    faulty.fault = Fault(cut_answer=0)
    with pytest.raises(StoreUnavailable, match="is not known") as caught:
        store.create("log", "2", b"same")
    one_line(caught)
    faulty.fault = None
    assert store.get("log", "2") == b"same"
    assert not store.create("log", "2", b"same")
    store.close()


def test_a_create_whose_answer_is_lost_knows_that_it_lost(url: str, faulty: Proxy) -> None:
    store = open_store(url, create=True)
    assert store.create("log", "1", b"same")
    faulty.fault = Fault(cut_answer=0, times=1)
    assert not store.create("log", "1", b"same")
    assert faulty.struck == 1
    store.close()


def _race(url: str, faulty: Proxy) -> list[int]:
    """How many of four creators of the same bytes won each of 15 names, while every third answer or so is lost."""
    stores = [open_store(url, create=True) for _ in range(4)]
    won = []
    with ThreadPoolExecutor(len(stores)) as pool:
        for name in range(15):
            faulty.fault = Fault(cut_answer=0, times=2)

            def create(store: Store, name: str = f"{name:04d}") -> bool:
                return store.create("log", name, b"same")

            won.append(sum(pool.map(create, stores)))
    faulty.fault = None
    for store in stores:
        store.close()
    return won


def test_of_racing_creators_one_wins_though_answers_are_lost(url: str, faulty: Proxy) -> None:
    assert _race(url, faulty) == [1] * 15
    assert faulty.struck >= 15


def test_the_creators_mark_is_what_tells_them_apart(url: str, faulty: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with the same mark for all, the race above has several winners."""
    monkeypatch.setattr(secrets, "token_hex", lambda length: "same" if length == 16 else os.urandom(length).hex())
    with pytest.raises(StoreError, match="If-None-Match"):
        open_store(url, create=True)
    monkeypatch.setattr(s3.CloudStore, "probe", lambda self: None)
    assert max(_race(url, faulty)) > 1


def test_servers_that_ignore_the_condition_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import obstore

    real = obstore.put
    monkeypatch.setattr(obstore, "put", lambda *a, mode=None, **k: real(*a, **k))
    with pytest.raises(StoreError, match="If-None-Match") as caught:
        open_store(url, create=True)
    one_line(caught)
    monkeypatch.undo()


# -- networks


def test_a_connection_that_breaks_in_a_put(url: str, faulty: Proxy) -> None:
    store = open_store(url, create=True)
    store.put("frames", "old", b"old")
    for cut in (0, 1, 700, 5000, 500_000, len(FRAME)):
        faulty.fault = Fault(cut_request=cut)
        for name in ("old", "new"):
            with pytest.raises(StoreUnavailable) as caught:
                store.put("frames", name, FRAME)
            one_line(caught)
        faulty.fault = None
        assert store.get("frames", "old") == b"old" and store.info("frames", "new") is None
    faulty.fault = Fault(cut_request=500_000, times=2)
    store.put("frames", "new", FRAME)
    assert faulty.fault.times == 0 and store.get("frames", "new") == FRAME
    store.close()


def test_bytes_that_change_on_their_way(url: str, faulty: Proxy) -> None:
    """What arrives is not what was signed: the server does not take it."""
    store = open_store(url, create=True)
    faulty.fault = Fault(flip_request=500_000)
    with pytest.raises(StoreUnavailable) as caught:
        store.put("frames", "a", FRAME)
    one_line(caught)
    assert faulty.struck and store.info("frames", "a") is None
    store.close()


def test_a_connection_that_breaks_in_a_get(url: str, faulty: Proxy) -> None:
    store = open_store(url, create=True)
    store.put("frames", "a", FRAME)
    for cut in (0, 1, 500, 500_000):
        faulty.fault = Fault(cut_answer=cut, times=1)
        assert store.get("frames", "a") == FRAME
        assert faulty.fault.times == 0
        faulty.fault = Fault(cut_answer=cut)
        if cut == 500_000:  # the library goes on where it was
            assert store.get("frames", "a") == FRAME
        else:
            with pytest.raises(StoreUnavailable) as caught:
                store.get("frames", "a")
            one_line(caught)
    store.close()


@pytest.mark.parametrize("status", ["503 Slow Down", "429 Too Many Requests", "500 Internal Server Error"])
def test_servers_that_want_to_be_asked_later(url: str, faulty: Proxy, status: str) -> None:
    store = open_store(url, create=True)
    store.put("frames", "a", b"x")
    asks = {
        "get": lambda: store.get("frames", "a"),
        "put": lambda: store.put("frames", "b", b"x"),
        "create": lambda: store.create("frames", "b", b"x"),
        "delete": lambda: store.delete("frames", ["a"]),
        "list": lambda: list(store.list("frames")),
        "info": lambda: store.info("frames", "a"),
        "move": lambda: store.move("frames", "a", "frames", "b"),
        "open": lambda: open_store(url),
    }
    for ask in asks.values():
        faulty.fault = Fault(answer=http_answer(status, "<Error><Code>SlowDown</Code></Error>"))
        with pytest.raises(StoreUnavailable) as caught:
            ask()
        assert caught.value.retryable
        one_line(caught, status[:3])
    faulty.fault = Fault(answer=http_answer(status), times=2)  # that passes, and nobody notices
    assert store.get("frames", "a") == b"x"
    assert faulty.fault.times == 0
    faulty.fault = None
    assert [stored.name for stored in store.list("frames")] == ["a"]
    store.close()


def test_servers_that_hang(url: str, faulty: Proxy, request: pytest.FixtureRequest) -> None:
    store = open_store(url, create=True)
    assert isinstance(store, s3.CloudStore)
    request.getfixturevalue("hasty")
    store._made = None  # the client, which is made anew, and gives up soon
    faulty.fault = Fault(stall=0)
    with pytest.raises(StoreUnavailable, match="does not answer") as caught:
        store.put("frames", "a", b"x")
    one_line(caught)
    assert faulty.struck
    store.close()


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (http_answer("301 Moved", "<Error><Code>PermanentRedirect</Code></Error>"), StoreError, "AWS_REGION"),
        (http_answer("400 Bad", "<Error><Code>AuthorizationHeaderMalformed</Code></Error>"), StoreError, "AWS_REGION"),
        (http_answer("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>"), StoreReadOnly, "AccessDenied"),
        (http_answer("403 Forbidden", "<Error><Code>QuotaExceeded</Code></Error>"), StoreFull, "QuotaExceeded"),
        (http_answer("403 Forbidden", "<Error><Code>ExpiredToken</Code></Error>"), StoreError, "ExpiredToken"),
        (http_answer("507 Insufficient Storage"), StoreFull, "no room"),
        (http_answer("501 Not Implemented"), StoreError, "501"),
        (http_answer("418 I'm a\tteapot", "\n\n"), StoreError, "418"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", StoreUnavailable, "connection"),
    ],
)
def test_answers_to_a_put(url: str, faulty: Proxy, answer: bytes, kind: type[StoreError], words: str) -> None:
    store = open_store(url, create=True)
    faulty.fault = Fault(answer=answer)
    with pytest.raises(kind) as caught:
        store.put("frames", "a", b"x")
    assert type(caught.value) is kind
    one_line(caught, words)
    store.close()


# -- what users get wrong


def test_wrong_keys(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
        monkeypatch.setenv(name, "wrong-key")
        for create in (False, True):
            with pytest.raises(StoreError) as caught:
                open_store(url, create=create)
            assert type(caught.value) is StoreError
            one_line(caught, "does not accept the keys", "AWS_ACCESS_KEY_ID")
            assert "wrong-key" not in str(caught.value)


def test_missing_bucket(url: str, tmp_path: Path) -> None:
    for create in (False, True):
        with pytest.raises(StoreNotFound) as caught:
            open_store("s3://no-such-bucket/x", create=create)
        one_line(caught, "no bucket no-such-bucket", "aws s3 mb s3://no-such-bucket")
    (tmp_path / "source").mkdir()
    got = command("--repo", "s3://no-such-bucket/x", "ingest", tmp_path / "source")
    assert got.returncode == 4 and got.stderr.count(b"\n") == 1, got.stderr


def test_missing_repository(url: str) -> None:
    with pytest.raises(StoreNotFound) as caught:
        open_store(url)
    one_line(caught, url)
    open_store(url, create=True).close()


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("http://127.0.0.1:9", "http://127.0.0.1:9 cannot be reached"),
        ("http://no-such-host.invalid", "not known by that name"),
        ("https://127.0.0.1:9", "cannot be reached"),
    ],
)
def test_unreachable_endpoints(url: str, monkeypatch: pytest.MonkeyPatch, endpoint: str, words: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    for create in (False, True):
        with pytest.raises(StoreUnavailable) as caught:
            open_store(url, create=create)
        one_line(caught, words)


@pytest.mark.parametrize("endpoint", ["gopher://x", "127.0.0.1:80", "file:///etc"])
def test_endpoints_that_cannot_be(url: str, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(UsageError, match="AWS_ENDPOINT_URL"):
        open_store(url, create=True)


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "/",
        "x",
        "a b/c",
        "bucket//x",
        "bucket/../x",
        "bucket/a/./b",
        "bucket/%2e",
        "bucket/a\nb",
        "bucket/" + "x" * 201,
        "bucket/" + "x/" * 400,
        "bücket/x",
        "bucket/frames",
        "bucket/a/log/b",
    ],
)
def test_urls_that_cannot_be(rest: str) -> None:
    for scheme in ("s3", "gs", "az"):
        with pytest.raises(UsageError) as caught:
            open_store(f"{scheme}://{rest}", create=True)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "rest", ["AKIA:secret@bucket/x", "AKIA:sec/ret@bucket", "bucket/x?key=secret", "bucket#secret", "user@secret"]
)
def test_keys_in_urls_are_refused_and_not_repeated(rest: str) -> None:
    for scheme, names in (("s3", "AWS_ACCESS_KEY_ID"), ("gs", "GOOGLE_APPLICATION"), ("az", "AZURE_STORAGE_")):
        with pytest.raises(UsageError) as caught:
            open_store(f"{scheme}://{rest}", create=True)
        one_line(caught, names)
        assert "sec" not in str(caught.value)


# -- keys and settings from files


def test_profiles(ceph: Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the server: keys from ~/.aws/credentials, endpoint and region from ~/.aws/config."""
    at = ceph.environment
    for name in at:
        monkeypatch.delenv(name)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(
        f"[default]\naws_access_key_id = wrong\naws_secret_access_key = wr%ng\n\n"
        f"[mine]\naws_access_key_id = {at['AWS_ACCESS_KEY_ID']}\naws_secret_access_key={at['AWS_SECRET_ACCESS_KEY']}\n"
    )
    (tmp_path / ".aws/config").write_text(
        f"[default]\nendpoint_url = {at['AWS_ENDPOINT_URL']}\n"
        f"[profile mine]\nendpoint_url = {at['AWS_ENDPOINT_URL']}\nregion = eu-west-1\ns3 =\n  max_queue_size = 3\n"
        f"[profile far]\nsso_session = x\n"
    )
    with pytest.raises(StoreError, match="does not accept the keys"):
        open_store(url, create=True)
    monkeypatch.setenv("AWS_PROFILE", "mine")
    store = open_store(url, create=True)
    assert isinstance(store, s3.CloudStore) and store._client().config["region"] == "eu-west-1"
    store.put("frames", "a", b"x")
    store.close()
    monkeypatch.setenv("AWS_PROFILE", "none")
    with pytest.raises(UsageError, match="neither") as caught:
        open_store(url)
    one_line(caught, "'none'", "credentials", "config")
    monkeypatch.setenv("AWS_PROFILE", "far")
    with pytest.raises(UsageError, match="export-credentials --profile far") as caught:
        open_store(url)
    one_line(caught)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):  # the environment comes first
        monkeypatch.setenv(name, at[name])
    open_store(url).close()


def test_settings_in_other_places_and_broken_ones(tmp_path: Path) -> None:
    credentials, config = tmp_path / "credentials", tmp_path / "config"
    there = {"AWS_SHARED_CREDENTIALS_FILE": str(credentials), "AWS_CONFIG_FILE": str(config)}
    assert cloud_clients.aws_settings(there) == {}
    credentials.write_text("[default]\naws_access_key_id=a\naws_secret_access_key=b\naws_session_token=c\n")
    config.write_text(
        "[default]\nregion=r\nendpoint_url=https://e\naws_access_key_id=no\n[profile default]\nregion=no\n"
    )
    keys = {"access_key_id": "a", "secret_access_key": "b", "session_token": "c"}
    assert cloud_clients.aws_settings(there) == {**keys, "region": "r", "endpoint": "https://e"}
    more = {"AWS_ACCESS_KEY_ID": "x", "AWS_ENDPOINT_URL_S3": "y", "AWS_DEFAULT_REGION": "z"}
    assert cloud_clients.aws_settings({**there, **more}) == {}
    credentials.write_text("aws_secret_access_key = a-secret\n")
    with pytest.raises(UsageError) as caught:
        cloud_clients.aws_settings(there)
    one_line(caught, str(credentials))
    assert "a-secret" not in str(caught.value)
    credentials.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError):
        cloud_clients.aws_settings(there)


def test_clients_of_the_other_clouds(monkeypatch: pytest.MonkeyPatch) -> None:
    from obstore.store import AzureStore, GCSStore

    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    for scheme, kind, bucket in (("gs", GCSStore, "bucket"), ("az", AzureStore, "container_name")):
        store = s3.CloudStore(scheme, "some-bucket", "a/b")
        client = store._client()
        assert isinstance(client, kind) and client.config[bucket] == "some-bucket"
        assert store._path("frames", "x") == "a/b/frames/x" and store.place == f"{scheme}://some-bucket/a/b"
        store.close()


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
@pytest.mark.parametrize("account", ["", "account"])
@pytest.mark.usefixtures("faulty", "hasty")
def test_no_keys(scheme: str, account: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are none in the environment, and no machine of a cloud that could be asked."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    if account:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", account)
    for create in (False, True):
        with pytest.raises(StoreError) as caught:
            open_store(f"{scheme}://some-bucket/x", create=create)
        one_line(caught, "no keys were found", cloud_clients.KEYS[scheme])


# -- whole repositories


def test_a_repository(url: str, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    fill(source, rng, 200)
    (source / "large").write_bytes(rng.randbytes(3 << 20))
    with Repository.open(url, create=True) as repository:
        first = version_of(taken(repository, source))
        (source / "d1/new").write_text("new")
        second = version_of(taken(repository, source))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "another machine's"))
    with Repository.open(url) as repository:
        assert [str(version) for version in repository.versions("r")] == [str(first), str(second)]
        assert differences(repository, second, source) == []
        found = verify(repository)
        assert found.sound and found.versions == 2 and found.frames > 3
        assert version_of(taken(repository, source)) == second
    with Repository.open(url, read_only=True) as repository:
        assert differences(repository, second, source) == []


def test_a_static_web_server_finds_what_it_needs(url: str, tmp_path: Path, rng: random.Random) -> None:
    from spraydry.stores.shared import listing

    fill(tmp_path / "source", rng, 5)
    got = command("--repo", url, "ingest", tmp_path / "source")
    assert got.returncode == 0, got.stderr
    store = open_store(url)
    assert isinstance(store, s3.CloudStore)
    import obstore

    found = listing.decode(bytes(obstore.get(store._client(), store._prefix + listing.NAME).bytes()))
    for namespace in listing.LISTED:
        assert found.values[namespace] == {name: size for name, size, _ in store.list(namespace)}
    assert found.values["log"] and found.values["index"] and found.values["config"]
    store.close()


def listed(url: str) -> tuple[dict[str, int], set[str]]:
    """The log in the listing of a store, and the names that are there."""
    import obstore

    from spraydry.stores.shared import listing

    store = open_store(url)
    assert isinstance(store, s3.CloudStore)
    found = listing.decode(bytes(obstore.get(store._client(), store._prefix + listing.NAME).bytes()))
    names = {stored.name for stored in store.list("log")}
    store.close()
    return found.values["log"], names


def test_machines_that_commit_at_the_same_time(url: str) -> None:
    store = open_store(url, create=True)
    store.put("config", "config", b"x")
    commit_together(url)
    in_listing, there = listed(url)
    assert set(in_listing) == there and len(there) == 24
    for _ in range(20):  # the control: written once, an older listing replaces a newer one
        store.delete("log", there)
        commit_together(url, WRITES_ONCE)
        if set(listed(url)[0]) != there:
            break
    else:
        pytest.fail("the control found no fault")
    store.flush()
    assert len(listed(url)[0]) == 24
    store.close()


# A command line; "broken" stores frames only after the commit.
COMMAND = """
import sys, time
from spraydry.repository.log import Log
from spraydry.stores.s3 import CloudStore
if sys.argv.pop(1) == "broken":
    late, put_many, append = [], CloudStore.put_many, Log.append
    def put_later(self, namespace, values):
        late.extend(values) if namespace == "frames" else put_many(self, namespace, values)
    began_s = time.monotonic()
    def commit(self, make):
        made = append(self, make)
        time.sleep(time.monotonic() - began_s)  # as long as all before took, on this machine
        put_many(self._store, "frames", late)
        return made
    CloudStore.put_many, Log.append = put_later, commit
from spraydry.cli import main
main()
"""


def _ingest(url: str, source: Path, cache: Path, kind: str = "sound", root: str = "r") -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, kind, "--repo", url, "ingest", str(source), "--root", root, "--json"],
        env={**os.environ, "XDG_CACHE_HOME": str(cache), "XDG_DATA_HOME": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("roots", [("r", "r"), ("r", "s")])
def test_two_machines_at_once(url: str, tmp_path: Path, rng: random.Random, roots: tuple[str, str]) -> None:
    """They take the same tree. Into one root, the second to commit may find that nothing changed."""
    source = tmp_path / "source"
    fill(source, rng, 300)
    (source / "large").write_bytes(rng.randbytes(2 << 20))
    running = [_ingest(url, source, tmp_path / f"machine{number}", root=root) for number, root in enumerate(roots)]
    made = set()
    for process in running:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        made.add("{root}@{version}".format(**json.loads(out)))
    with Repository.open(url) as repository:
        versions = [version for root in repository.roots() for version in repository.versions(root)]
        assert {str(version) for version in versions} == made
        assert len(made) == 2 or set(roots) == {"r"}
        for version in versions:
            assert differences(repository, version, source) == []
        assert verify(repository).sound


def _killed(url: str, folder: Path, kind: str, rounds: int, rng: random.Random) -> tuple[int, int]:
    """Kill an ingest of a changing tree so often; how many versions were acknowledged, and how many are there. Raises
    SprayDryError or AssertionError where one of them is not whole."""
    source, held, acknowledged, all_s = folder / "source", {}, set(), 0.0
    for turn in range(rounds):
        fill(source, rng, 40, 20_000)
        (source / "round").write_text(str(turn))
        started_s = time.monotonic()
        process = _ingest(url, source, folder / "machine", kind)
        if turn:
            time.sleep(max(all_s * rng.uniform(0.3, 1.05) - (time.monotonic() - started_s), 0))
            process.send_signal(signal.SIGKILL)
        out, err = process.communicate(timeout=600)
        if turn == 0:
            all_s = time.monotonic() - started_s
        assert process.returncode in (0, -signal.SIGKILL), err
        if process.returncode == 0:
            acknowledged.add(json.loads(out)["version"])
        held[str(turn)] = {path.relative_to(source): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    with Repository.open(url) as repository:
        versions = repository.versions("r")
        assert acknowledged <= {version.name for version in versions}
        for version in versions:
            there = {
                Path(os.fsdecode(found.path)): repository.open_file(found).read()
                for found in repository.walk(str(version))
                if found.entry.kind == 1
            }
            assert there == held[there[Path("round")].decode()]
        found = verify(repository)  # frames of which no index run was written yet may be there, whole
        assert not (found.damaged_frames or found.damage or found.other)
        return len(acknowledged), len(versions)


def test_killed_writers(url: str, tmp_path: Path, rng: random.Random) -> None:
    acknowledged, there = _killed(url, tmp_path, "sound", 7, rng)
    assert 1 <= acknowledged <= there


def test_killed_writers_that_commit_first_are_caught(url: str, tmp_path: Path, rng: random.Random) -> None:
    """The control."""
    with pytest.raises((SprayDryError, AssertionError)):
        for number in range(4):
            _killed(f"{url}/{number}", tmp_path / str(number), "broken", 5, rng)
