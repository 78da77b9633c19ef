"""`/v1/` over real connections: values, batches and what is refused."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
import trio

from spraydry.actions.ingest import ingest
from spraydry.actions.remove import remove
from spraydry.actions.verify import verify
from spraydry.errors import SprayDryError
from spraydry.format import frame as frames
from spraydry.format.digest import digest
from spraydry.format.run import Row, encode_run
from spraydry.repository.frames import frame_info
from spraydry.repository.repository import Repository
from spraydry.stores.remote import wire
from spraydry.web.bodies import Room
from tests.ingest.trees import differences
from tests.versions import make_version
from tests.web.asking import token
from tests.web.serving import serving


@dataclass
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def kind(self) -> str:
        return str(json.loads(self.body)["kind"])


@dataclass
class Client:
    """Asks one server, over a new connection each time."""

    port: int

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            response = connection.getresponse()
            return Answer(
                response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}
            )
        finally:
            connection.close()

    def put(self, namespace: str, name: str, value: bytes, create: bool = False) -> Answer:
        return self.ask("PUT", wire.value_path(namespace, name), value, **({"If_None_Match": "*"} if create else {}))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("served") / "repository.sqlite")


@pytest.fixture(scope="module")
def client(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with serving(tmp_path_factory.mktemp("server"), SPRAYDRY_REPO=url) as server:
        yield Client(server.port)


def test_greeting(client: Client, url: str) -> None:
    found = wire.greeting_of(client.ask("GET", "/v1/").body)
    assert found is not None and not found.read_only and found.complete
    with Repository.open(url) as repository:
        assert found.repository == repository.config.repository.hex()


def test_values(client: Client) -> None:
    made = frames.encode([b"one chunk" * 100, b"another" * 50], "other")
    path = wire.value_path("frames", made.name.hex())
    assert client.ask("GET", path).status == 404
    assert client.put("frames", made.name.hex(), made.stored).status == 201
    assert client.put("frames", made.name.hex(), made.stored, create=True).status == 412
    got = client.ask("GET", path)
    assert (got.status, got.body) == (200, made.stored)
    assert got.headers["etag"] == f'"{made.name.hex()}"' and "immutable" in got.headers["cache-control"]
    part = client.ask("GET", path, Range="bytes=4-7")
    assert (part.status, part.body) == (206, made.stored[4:8])
    assert part.headers["content-range"] == f"bytes 4-7/{len(made.stored)}"
    assert client.ask("GET", path, If_None_Match=got.headers["etag"]).status == 304
    assert client.ask("GET", path, Range="bytes=99999999-").status == 416
    head = client.ask("HEAD", path)
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(made.stored)))
    run = encode_run(
        [frame_info(made.name, made.header, len(made.stored))],
        [Row(digest(b"one chunk" * 100), 0, 0, 900), Row(digest(b"another" * 50), 0, 900, 350)],
    )
    assert client.put("index", digest(run).hex(), run).status == 201
    chunk = client.ask("GET", f"/v1/chunks/{digest(b'another' * 50).hex()}", Range="bytes=-7")
    assert (chunk.status, chunk.body) == (206, b"another")


def test_what_is_no_value_is_refused(client: Client) -> None:
    made = frames.encode([random.randbytes(100)], "other")
    other = frames.encode([random.randbytes(100)], "other")
    assert client.put("frames", made.name.hex(), other.stored).status == 422
    broken = made.stored[:-1] + bytes([made.stored[-1] ^ 1])
    assert client.put("frames", made.name.hex(), broken).status == 422
    for name in ("config", "stores", "origin", "bundle"):
        assert client.put("config", name, b"x").status == 422
    assert client.ask("GET", "/v1/values/config/config").status == 200
    assert client.ask("GET", "/v1/values/config/stores").status == 404


def test_who_may_only_add_ingests_and_leaves_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: random.Random
) -> None:
    url, source, tokens = str(tmp_path / "repository.sqlite"), tmp_path / "source", tmp_path / "tokens.json"
    source.mkdir()
    monkeypatch.setenv("SPRAYDRY_TOKEN", token(tokens, "adding", "list", "read", "add"))
    with serving(tmp_path / "run", "--tokens", str(tokens), SPRAYDRY_REPO=url) as server:
        for number in range(20):
            (source / f"{number}.bin").write_bytes(rng.randbytes(3000))
            with Repository.open(server.url) as repository:
                ingest(repository, [str(source)], root="source")
        with Repository.open(server.url) as repository:
            assert len(repository.versions("source")) == 20
            with pytest.raises(SprayDryError, match="does not give the right to delete"):
                remove(repository, ["source@v1"])
            assert differences(repository, repository.log.find("source"), source) == []
            # what each commit leaves in small runs is merged by the server behind it, and by nobody else
            deadline = time.monotonic() + 300
            while len(list(repository.store.list("index"))) >= 12:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert list(repository.store.list("leases")) == []
    with Repository.open(url) as repository:
        assert verify(repository).sound and len(repository.versions("source")) == 20


def test_trees_and_roots(tmp_path: Path) -> None:
    url = str(tmp_path / "repository.sqlite")
    names = [b"plain", b"a line\nfeed", b"no utf-8 \xff", "ünï/".encode()[:-1], b"100%", b"q?#&+ ", b"@"]
    with Repository.open(url, create=True) as repository:
        make_version(repository, "photos", {b"sub": {name: name for name in names}, b"link": "sub/plain"})
    with serving(tmp_path / "run", SPRAYDRY_REPO=url) as server:
        client = Client(server.port)
        (root,) = json.loads(client.ask("GET", "/v1/roots").body)["roots"]
        assert root["root"] == "photos" and [one["version"] for one in root["versions"]] == ["v1"]
        for address in ("photos", "photos@v1", "photos@latest", "photos%40v1"):
            told = json.loads(client.ask("GET", f"/v1/trees/{address}").body)
            assert told["version"] == "photos@v1" and [one["name"] for one in told["entries"]] == ["link", "sub"]
        found, after = [], ""
        while True:
            told = json.loads(client.ask("GET", f"/v1/trees/photos@v1/sub?limit=2{after}").body)
            assert len(told["entries"]) <= 2
            found += told["entries"]
            if not told["more"]:
                break
            after = "&after=" + told["entries"][-1]["path"].rpartition("/")[2]
        assert [unquote_to_bytes(one["path"]) for one in found] == [b"sub/" + name for name in sorted(names)]
        for one in found:
            got = json.loads(client.ask("GET", f"/v1/trees/photos@v1/{one['path']}").body)
            assert got["entry"] == one and got["entries"] == []
            whole = client.ask("GET", f"/v1/chunks/{one['digest']}")
            assert whole.body == unquote_to_bytes(one["path"])[4:]
        for path in ("absent", "photos@v9", "photos/absent", "photos/link/x", "photos/sub/%00", "photos/.."):
            assert client.ask("GET", f"/v1/trees/{path}").status in (400, 404), path


def test_batches(client: Client) -> None:
    made = [frames.encode([bytes([number]) * 100], "other") for number in range(5)]
    stream = b"".join(wire.encode_values((one.name.hex(), one.stored) for one in made))
    assert client.ask("POST", wire.put_path("frames"), stream).status == 204
    names = ["0" * 64, *(one.name.hex() for one in made)]
    asked = wire.encode(wire.Names(namespace="frames", names=tuple(names)))
    has = wire.decode(client.ask("POST", wire.batch_path("has"), asked).body, wire.Sizes)
    assert has.sizes == (None, *(len(one.stored) for one in made))
    reader = wire.Items(1 << 20)
    items = reader.feed(client.ask("POST", wire.batch_path("get"), asked).body)
    assert reader.ended and [one.name for one in items] == names
    assert [one.value for one in items] == [b"", *(one.stored for one in made)]
    # one that is wrong, and none is stored
    more = [frames.encode([bytes([number]) * 99], "other") for number in range(3)]
    wrong = [(one.name.hex(), one.stored) for one in more[:2]] + [(more[2].name.hex(), more[0].stored)]
    assert client.ask("POST", wire.put_path("frames"), b"".join(wire.encode_values(wrong))).status == 422
    sizes = wire.encode(wire.Names(namespace="frames", names=tuple(one.name.hex() for one in more)))
    assert json.loads(client.ask("POST", wire.batch_path("has"), sizes).body) == {"sizes": [None, None, None]}
    run = encode_run(
        [frame_info(one.name, one.header, len(one.stored)) for one in made],
        [Row(digest(bytes([number]) * 100), number, 0, 100) for number in range(5)],
    )
    assert client.put("index", digest(run).hex(), run).status == 201
    chunks = wire.Chunks(names=(digest(bytes([3]) * 100).hex(), "1" * 64))
    reader = wire.Items(1 << 20)
    got = reader.feed(client.ask("POST", wire.batch_path("chunks"), wire.encode(chunks)).body)
    assert reader.ended and [one.value for one in got] == [bytes([3]) * 100, b""]
    too_many = wire.encode(wire.Names(namespace="frames", names=("0" * 64,) * (wire.MOST_NAMES + 1)))
    for verb in ("get", "has", "delete", "purge"):
        assert client.ask("POST", wire.batch_path(verb), too_many).status == 400


def test_listings_are_paged(client: Client) -> None:
    for number in range(3):
        made = frames.encode([b"listed %d" % number], "other")
        assert client.put("frames", made.name.hex(), made.stored).status == 201
    first = json.loads(client.ask("GET", wire.listing_path("frames", "", 2)).body)
    assert len(first["values"]) == 2 and first["more"] and first["complete"]
    after = first["values"][-1][0]
    rest = json.loads(client.ask("GET", wire.listing_path("frames", after, 1000)).body)
    assert not rest["more"] and all(name > after for name, _ in rest["values"])
    for bad in ("limit=0", "limit=-1", "limit=10001", "limit=x", "limit=%C2%B2", "deleted=maybe"):
        assert client.ask("GET", f"/v1/values/frames?{bad}").status == 400, bad
    assert client.ask("GET", "/v1/values/nothing").status == 400
    assert [name for name, _ in json.loads(client.ask("GET", "/v1/values/config").body)["values"]] == ["config"]


def test_the_slowest_body_makes_room_for_others() -> None:
    async def slow_and_fast() -> None:
        room = Room(1000)
        with room.body() as slow, room.body() as fast:
            slow.began -= 100
            slow.receiving, fast.receiving = trio.CancelScope(), trio.CancelScope()
            room.add(slow, 400)
            room.add(fast, 500)
            assert not slow.receiving.cancel_called
            room.add(fast, 200)
            assert slow.receiving.cancel_called and not fast.receiving.cancel_called
        with room.body() as alone:
            alone.receiving = trio.CancelScope()
            room.add(alone, 1000)
            assert not alone.receiving.cancel_called

    trio.run(slow_and_fast)
