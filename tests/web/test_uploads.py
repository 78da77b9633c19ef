"""What a server takes from clients, and what it does not: of one who may add, nothing that destroys or lies."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zstandard

from spraydry.actions.ingest import ingest
from spraydry.actions.verify import verify
from spraydry.errors import (
    CollectedMeanwhile,
    SlotTaken,
    StoreFull,
    StoreReadOnly,
    TooLarge,
    UploadRefused,
    UsageError,
    ValueNotFound,
    VersionExists,
)
from spraydry.format import frame as frames
from spraydry.format.digest import digest
from spraydry.format.entry import Entry, Runs, Subtree, Totals
from spraydry.format.manifest import encode_manifest
from spraydry.format.run import Row, encode_run
from spraydry.format.version import (
    CheckpointRecord,
    CollectRecord,
    CondemnRecord,
    DictionariesRecord,
    DropRecord,
    HoardRecord,
    RemovalRecord,
    RevokeRecord,
    TagRecord,
    encode_record,
)
from spraydry.repository.frames import frame_info
from spraydry.repository.leases import Held
from spraydry.repository.packs import SLOTS
from spraydry.repository.repository import Repository
from spraydry.repository.slots import slot_name
from spraydry.web.grant import Grant, Refused, Right, Rule
from spraydry.web.keyvalue.gate import Gate
from tests.ingest.trees import differences, fill
from tests.web.uploads import (
    ADDING,
    ALL,
    READING,
    Sender,
    claiming,
    directory_of,
    fields,
    file_of,
    rows_of,
    sender,
    version,
)

ONE, TWO = b"one chunk, " * 40, b"and another one, " * 30


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Sender]:
    with sender(tmp_path) as made:
        yield made


def held(repository: Repository) -> dict[str, list[str]]:
    """All that the store holds, by namespace."""
    return {
        namespace: [stored.name for stored in repository.store.list(namespace)]
        for namespace in ("frames", "index", "log", "dictionaries", "hoards", "leases", "config")
    }


@pytest.fixture
def refused(client: Sender) -> Iterator[Callable[..., None]]:
    """Asserts that something is refused, and that nothing was stored by it."""

    def check(ask: Callable[[], object], kind: type[Exception] = UploadRefused, match: str | None = None) -> None:
        before = held(client.repository)
        with pytest.raises(kind, match=match):
            ask()
        assert held(client.repository) == before

    yield check


# -- what an honest client does


def test_a_repository_sent_value_by_value_is_whole(tmp_path: Path, client: Sender, rng: random.Random) -> None:
    source = tmp_path / "source"
    source.mkdir()
    fill(source, rng, 40)
    (source / "large.bin").write_bytes(rng.randbytes(3_000_000))
    with Repository.open(str(tmp_path / "own.sqlite"), create=True) as own:
        ingest(own, [str(source)], root="source")
        ingest(own, [str(source)], root="again")
        for namespace in ("dictionaries", "frames", "index"):
            for stored in own.store.list(namespace):
                client.put(namespace, stored.name, own.store.get(namespace, stored.name))
        for stored in own.store.list("log"):
            assert client.create("log", stored.name, own.store.get("log", stored.name))
    client.gate.records.tidy()
    assert verify(client.repository).sound
    assert differences(client.repository, client.repository.log.find("source"), source) == []
    # all of it counts for what comes next: nothing of that is stored again
    before = held(client.repository)["frames"]
    ingest(client.repository, [str(source)], root="third")
    assert held(client.repository)["frames"] == before


def test_what_is_sent_again_is_as_if_sent_once(client: Sender) -> None:
    made = client.store(ONE)
    before = held(client.repository)
    client.put("frames", made.name.hex(), made.stored)
    assert not client.create("frames", made.name.hex(), made.stored)
    client.run(*rows_of(made, [ONE]))
    assert held(client.repository) == before
    record = encode_record(version(file_of(b"", ONE)))
    assert client.create("log", slot_name(1), record)
    assert not client.create("log", slot_name(1), record)


def test_of_two_that_race_for_a_slot_one_wins(client: Sender) -> None:
    client.store(ONE)
    first, second = (encode_record(version(file_of(b"", ONE), name=name)) for name in ("a", "b"))
    assert client.create("log", slot_name(1), first)
    assert not client.create("log", slot_name(1), second)
    assert client.repository.store.get("log", slot_name(1)) == first


# -- values that are not what they say


def test_frames(client: Sender, refused: Callable[..., None]) -> None:
    made = frames.encode([ONE, TWO], "other")
    name = made.name.hex()
    refused(lambda: client.put("frames", name, made.stored[:-1]), match="not those of its name")
    refused(lambda: client.put("frames", name, made.stored + b"x"), match="not those of its name")
    refused(lambda: client.put("frames", name, frames.encode([ONE], "other").stored), match="not those of its name")

    def named(value: bytes) -> Callable[[], object]:
        return lambda: client.put("frames", digest(value).hex(), value)

    for value in (b"", b"x", b"SDfr" + bytes(100), made.stored[:-1], made.stored + b"x", made.stored[:40]):
        refused(named(value), match="not good")
    # of each byte the other value: what decodes to something is named by what it decodes to, whatever a run says
    taken = 0
    for at in range(0, len(made.stored), 3):
        other = made.stored[:at] + bytes([made.stored[at] ^ 0x40]) + made.stored[at + 1 :]
        try:
            client.put("frames", digest(other).hex(), other)
        except UploadRefused:
            continue
        taken += 1
        if not SALT.start <= at < SALT.stop:
            refused(lambda other=other: client.run(*rows_like(digest(other), made, [ONE, TWO], len(other))))
    assert taken
    refused(lambda: client.put("frames", "ab", b"x"), match="no digest")
    refused(lambda: client.put("frames", "a/b", b"x"), UsageError)
    refused(lambda: client.put("frames", name, bytes((4 << 20) + (64 << 10) + 1)), TooLarge)


SALT = range(20, 36)


def rows_like(name: bytes, made: frames.Encoded, chunks: list[bytes], size: int):  # type: ignore[no-untyped-def]
    infos, rows = rows_of(made, chunks)
    return [msgspec.structs.replace(infos[0], name=name, stored=size)], rows


def test_a_frame_that_would_fill_the_memory(client: Sender, refused: Callable[..., None]) -> None:
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(200 << 20))
    inner = msgspec.msgpack.encode(("other", 3, (4 << 20,), ()))
    outer = struct.pack("<4sBBBBIII16s", b"SDfr", 1, 0, 1, 0, len(bomb), len(inner), 0, bytes(16))
    value = outer + inner + bomb
    refused(lambda: client.put("frames", digest(value).hex(), value), match="claims 209715200 bytes")


def test_frames_that_need_a_dictionary(client: Sender, refused: Callable[..., None]) -> None:
    samples = [random.Random(seed).choice([ONE, TWO]) + bytes([seed % 256]) * 9 for seed in range(400)]
    dictionary = frames.Dictionary.of(zstandard.train_dictionary(2048, samples).as_bytes())
    made = frames.encode([ONE + TWO], "other", dictionary=dictionary)
    assert made.header.dictionary == dictionary.digest
    name = dictionary.digest.hex()
    refused(lambda: client.put("frames", made.name.hex(), made.stored), match="dictionary .*is not here")
    refused(lambda: client.put("dictionaries", name, dictionary.plain[:-1]), match="not those of its name")
    for value in (b"", b"no dictionary at all", dictionary.plain[:64]):
        refused(lambda value=value: client.put("dictionaries", digest(value).hex(), value), match="not a zstd")
    client.put("dictionaries", name, dictionary.plain)
    client.put("frames", made.name.hex(), made.stored)
    # given up, it is neither stored again nor used by what comes later
    client.grant = ALL
    client.append(DropRecord(**fields(), dictionaries=(dictionary.digest,)))
    client.grant = ADDING
    other = frames.encode([TWO + ONE], "other", dictionary=dictionary)
    refused(lambda: client.put("dictionaries", name, dictionary.plain), match="given up")
    refused(lambda: client.put("frames", other.name.hex(), other.stored), match="given up")


# -- runs that lie


def test_runs(client: Sender, refused: Callable[..., None]) -> None:
    made = client.frame([ONE, TWO])
    infos, rows = rows_of(made, [ONE, TWO])
    info, (one, two) = infos[0], rows
    for lie in (
        [Row(digest(b"what nobody has"), 0, 0, len(ONE))],
        [one._replace(offset=1)],
        [one._replace(length=len(ONE) - 1)],
        [one._replace(digest=two.digest)],
        [one, two._replace(offset=0)],
        [one, two, Row(digest(ONE + TWO), 0, 0, len(ONE + TWO))],
    ):
        refused(lambda lie=lie: client.run(infos, lie), match="is not so")
    changes: tuple[dict[str, object], ...] = (
        {"frame_class": "python"},
        {"codec": 1 - info.codec},
        {"level": 19},
        {"dictionary": bytes(32)},
        {"plain": info.plain + 1},
        {"stored": info.stored + 1},
    )
    for change in changes:
        refused(lambda change=change: client.run([msgspec.structs.replace(info, **change)], rows), match="is not so")
    refused(lambda: client.run([msgspec.structs.replace(info, name=bytes(32))], rows), match="which is not here")
    refused(lambda: client.run([info, info], rows), match="twice")
    run = encode_run(infos, rows)
    refused(lambda: client.put("index", digest(run).hex(), run + b"x"), match="not those of its name")
    for value in (b"", run[:-1], run + bytes(44), b"x" * 100):
        refused(lambda value=value: client.put("index", digest(value).hex(), value))
    # fewer rows than the frame has chunks are no lie
    client.run(infos, [two])
    assert client.repository.catalog.chunks.known([one.digest, two.digest]) == {two.digest}


def test_a_run_that_lies_is_met_however_long_ago_its_frame_came(tmp_path: Path, client: Sender) -> None:
    """What was decoded is known from memory, from the catalog or from the frame itself: all three say the same."""
    made = client.frame([ONE, TWO])
    infos, rows = rows_of(made, [ONE, TWO])
    lie = [rows[0]._replace(digest=digest(b"what nobody has"))]
    client.run(infos, rows[:1])
    for gate in (client.gate, Gate(client.repository, False)):
        client.gate = gate
        with pytest.raises(UploadRefused, match="is not so"):
            client.run(infos, lie)
        client.run(infos, rows[:1])
    with sender(tmp_path, name="bare") as other:  # this catalog never heard of it
        other.repository.store.put("frames", made.name.hex(), made.stored)
        with pytest.raises(UploadRefused, match="is not so"):
            other.run(infos, lie)
        other.run(infos, rows)
        assert other.repository.catalog.chunks.known([row.digest for row in rows]) == {row.digest for row in rows}


def test_a_frame_that_could_not_be_stored_is_in_no_run(client: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StoreFull("no room")

    made = frames.encode([ONE], "other")
    with monkeypatch.context() as patch:
        patch.setattr(type(client.repository.store), "put_many", full)
        with pytest.raises(StoreFull):
            client.put("frames", made.name.hex(), made.stored)
    with pytest.raises(UploadRefused, match="which is not here"):
        client.run(*rows_of(made, [ONE]))


def test_a_damaged_frame_is_in_no_run(client: Sender) -> None:
    made = frames.encode([ONE], "other")
    client.repository.store.put("frames", made.name.hex(), made.stored[:-1] + b"x")
    with pytest.raises(UploadRefused, match="is damaged"):
        client.run(*rows_of(made, [ONE]))
    client.put("frames", made.name.hex(), made.stored)  # which mends it
    client.run(*rows_of(made, [ONE]))


def test_what_is_remembered_of_frames_is_bounded(client: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spraydry.web.keyvalue.frames._REMEMBERED_BYTES", 2000)
    made = [client.frame([ONE, bytes([number]) * 100]) for number in range(20)]
    decoded = client.gate._decoded
    assert decoded._held <= 2000 and decoded.of(made[0].name) is None and decoded.of(made[-1].name) is not None
    for number, one in enumerate(made):
        client.run(*rows_of(one, [ONE, bytes([number]) * 100]))


# -- the log


def test_a_version_of_which_something_is_missing(client: Sender, refused: Callable[..., None]) -> None:
    entry, pages = directory_of([file_of(b"a", ONE), file_of(b"b", TWO)])
    refused(lambda: client.append(version(entry)), match="is not whole")
    client.store(*pages.values())
    refused(lambda: client.append(version(entry)), match="needs chunk")
    client.store(ONE)
    refused(lambda: client.append(version(entry)), match="needs chunk")
    client.frame([TWO])  # there, but in no run
    refused(lambda: client.append(version(entry)), match="needs chunk")
    refused(lambda: client.append(version(file_of(b"", TWO))), match="needs chunk")
    refused(lambda: client.append(version(file_of(b"", b""), links=digest(b"nothing"))), match="is not whole")
    client.store(TWO)
    refused(lambda: client.append(version(entry, links=digest(b"nothing"))), match="is not whole")
    assert client.append(version(entry))
    assert verify(client.repository).sound


def test_a_version_that_claims_what_its_pages_are_not(client: Sender, refused: Callable[..., None]) -> None:
    """Walking it would end in an error, and end each collection: also where the honest tree was walked before."""
    inner, pages = directory_of([file_of(b"a", ONE)], b"inner")
    honest, outer = directory_of([inner])
    lying, more = directory_of([claiming(inner, Totals(5, 5, 5, 1))])
    client.store(ONE, *pages.values(), *outer.values(), *more.values())
    refused(lambda: client.append(version(lying)), match="is not whole")
    refused(lambda: client.append(version(claiming(honest, Totals(9, 9, 9, 9)))), match="is not whole")
    assert client.append(version(honest))
    refused(lambda: client.append(version(lying, name="v2")), match="is not whole")
    refused(lambda: client.append(version(claiming(honest, Totals(9, 9, 9, 9)), name="v2")), match="is not whole")
    runs = encode_manifest([(len(ONE), digest(ONE)), (len(TWO), digest(TWO))])
    client.store(TWO, *(plain for _, plain in runs))
    file = msgspec.structs.replace(
        file_of(b"", ONE + TWO), content=Runs(digest(ONE + TWO), runs[-1][0], len(ONE + TWO))
    )
    assert client.append(version(file, name="v2"))
    refused(lambda: client.append(version(msgspec.structs.replace(file, size=7), name="v3")))


def test_what_was_walked_for_a_record_that_failed_is_walked_again(client: Sender) -> None:
    entry, pages = directory_of([file_of(b"a", ONE), file_of(b"b", TWO)])
    client.store(ONE, *pages.values())
    for _ in range(2):
        with pytest.raises(UploadRefused, match="needs chunk"):
            client.append(version(entry))


def test_a_version_resting_on_what_was_condemned(client: Sender) -> None:
    made = client.store(ONE)
    entry = file_of(b"", ONE)
    client.append(version(entry))
    client.grant = ALL
    client.append(RemovalRecord(**fields(), slot=1))
    client.append(CondemnRecord(**fields(), frames=(made.name,)))
    client.grant = ADDING
    with pytest.raises(UploadRefused, match="needs chunk"):
        client.append(version(entry, name="v2"))
    # nor does the same frame count again, whose name was given up
    with pytest.raises(UploadRefused, match="names never come back"):
        client.put("frames", made.name.hex(), made.stored)
    client.run(*rows_of(made, [ONE]))
    with pytest.raises(UploadRefused, match="needs chunk"):
        client.append(version(entry, name="v2"))
    client.store(ONE)
    assert client.append(version(entry, name="v2"))


def test_a_frame_condemned_while_its_version_is_checked(client: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    made = client.store(ONE)
    entry = file_of(b"", ONE)
    client.append(version(entry, name="v1"))
    with Repository.open(client.repository.url) as other:
        whole = client.gate.records._whole
        check = whole.check

        def slow(*arguments: object) -> None:
            check(*arguments)  # type: ignore[arg-type]
            monkeypatch.undo()
            other.log.append(
                lambda previous, now: CondemnRecord(**{**fields(), "previous": previous}, frames=(made.name,))
            )

        monkeypatch.setattr(whole, "check", slow)
        assert not client.append(version(entry, name="v2"))  # the slot is taken
    with pytest.raises(UploadRefused, match="needs chunk"):
        client.append(version(entry, name="v2"))


def test_slots(client: Sender, refused: Callable[..., None]) -> None:
    client.store(ONE)
    record = version(file_of(b"", ONE))
    value = encode_record(record)
    for name in ("000000000000", "1", "0000000000001", "00000000000a", "x"):
        refused(lambda name=name: client.create("log", name, value), match="no slot")
    refused(lambda: client.create("log", slot_name(2), value), SlotTaken)
    refused(lambda: client.create("log", slot_name(1 << 30), value), SlotTaken)
    refused(lambda: client.append(msgspec.structs.replace(record), slot=2), SlotTaken)
    other = encode_record(msgspec.structs.replace(record, previous=digest(b"another log")))
    refused(lambda: client.create("log", slot_name(1), other), SlotTaken)
    for broken in (b"", value[:-1], value[1:], value[:-32] + bytes(32), value + b"x", encoded(b"\x90"), encoded(b"")):
        refused(lambda broken=broken: client.create("log", slot_name(1), broken), match="not taken")
    newer = msgspec.msgpack.encode([200, 1, bytes(32), 0, ""])
    refused(lambda: client.create("log", slot_name(1), encoded(newer)), match="newer spraydry")
    refused(lambda: client.put("log", slot_name(1), value), match="one by one")
    assert client.append(record)
    # neither replaced nor deleted by anybody
    client.grant = ALL
    refused(lambda: client.put("log", slot_name(1), encode_record(version(file_of(b"", b"")))), match="one by one")
    assert not client.create("log", slot_name(1), encode_record(version(file_of(b"", b""))))
    for how in ("delete", "soft-delete", "purge", "undelete"):
        refused(lambda how=how: client.gate.delete(ALL, "log", [slot_name(1)], how), match="nothing is deleted")


def encoded(plain: bytes) -> bytes:
    return plain + digest(plain)


def test_what_names_say(client: Sender, refused: Callable[..., None]) -> None:
    client.store(ONE)
    client.append(version(file_of(b"", ONE)))
    client.append(version(file_of(b"", b""), root="other"))
    refused(lambda: client.append(version(file_of(b"", b""))), VersionExists)
    refused(lambda: client.append(TagRecord(**fields(), root="photos", name="v1", slot=1)), VersionExists)
    refused(lambda: client.append(TagRecord(**fields(), root="photos", name="best", slot=2)), match="no version")
    refused(lambda: client.append(TagRecord(**fields(), root="new", name="best", slot=1)), match="no version")
    refused(lambda: client.append(version(file_of(b"", ONE), root="..")), match="cannot be")
    refused(lambda: client.append(version(file_of(b"", ONE), name="latest")), match="cannot be")
    for spec in ("", "fixed:size=1", "nothing", "fastcdc:min=1,avg=1,max=1"):
        refused(lambda spec=spec: client.append(version(file_of(b"", ONE), name="v2", spec=spec)))
    late = time.time_ns() + 3 * 3600 * 10**9
    refused(lambda: client.append(version(file_of(b"", ONE), name="v2", made_ns=late)), match="clock")
    refused(lambda: client.append(version(file_of(b"", ONE), name="v2", made_ns=-1)), match="clock")
    assert client.append(TagRecord(**fields(), root="photos", name="best", slot=1))


def test_rights_of_records(client: Sender, refused: Callable[..., None]) -> None:
    made = client.store(ONE)
    client.append(version(file_of(b"", ONE)))
    for record in (
        RemovalRecord(**fields(), slot=1),
        CondemnRecord(**fields(), frames=(made.name,)),
        DropRecord(**fields(), dictionaries=(bytes(32),)),
    ):
        refused(lambda record=record: client.append(record), Refused, "delete")
    client.grant = ALL
    client.append(RemovalRecord(**fields(), slot=1))
    client.append(CondemnRecord(**fields(), frames=(made.name,)))
    client.grant = ADDING
    refused(lambda: client.append(RevokeRecord(**fields(), slot=2)), Refused, "delete")
    refused(lambda: client.append(RevokeRecord(**fields(), slot=3)), Refused, "delete")
    refused(lambda: client.append(CollectRecord(**fields(), slot=3)), Refused, "delete")
    refused(lambda: client.append(RevokeRecord(**fields(), slot=9)))
    refused(lambda: client.append(RemovalRecord(**fields(), slot=3)), match="no version")
    client.grant = READING
    refused(lambda: client.append(version(file_of(b"", b""))), Refused, "add")
    client.grant = Grant((Rule(frozenset[Right]({"list", "read", "add"}), roots=("mine*",)),))
    refused(lambda: client.append(version(file_of(b"", b""))), Refused, "add")
    assert client.append(version(file_of(b"", b""), root="mine-1"))


def test_a_version_comes_back_whole_or_not_at_all(client: Sender, refused: Callable[..., None]) -> None:
    made = client.store(ONE)
    client.grant = ALL
    client.append(version(file_of(b"", ONE)))
    client.append(RemovalRecord(**fields(), slot=1))
    client.append(CondemnRecord(**fields(), frames=(made.name,)))
    refused(lambda: client.append(RevokeRecord(**fields(), slot=2)), match="needs chunk")
    client.append(RevokeRecord(**fields(), slot=3))
    assert client.append(RevokeRecord(**fields(), slot=2))


def test_dictionaries_in_use(client: Sender, refused: Callable[..., None]) -> None:
    plains = []
    for seed in range(2):
        rng = random.Random(seed)
        samples = [rng.choice([ONE, TWO]) + rng.randbytes(20) for _ in range(400)]
        plains.append(zstandard.train_dictionary(1024, samples).as_bytes())
        client.put("dictionaries", digest(plains[-1]).hex(), plains[-1])
    one, two = map(digest, plains)
    refused(lambda: client.append(DictionariesRecord(**fields(), adopted=(("json", bytes(32)),))), match="is not here")
    client.append(DictionariesRecord(**fields(), adopted=(("json", one),)))
    refused(lambda: client.append(DictionariesRecord(**fields(), adopted=())), Refused, "overwrite")
    refused(lambda: client.append(DictionariesRecord(**fields(), adopted=(("json", two),))), Refused, "overwrite")
    assert client.append(DictionariesRecord(**fields(), adopted=(("json", one), ("python", two))))
    client.grant = ALL
    assert client.append(DictionariesRecord(**fields(), adopted=(("json", two),)))
    client.append(DropRecord(**fields(), dictionaries=(one,)))
    refused(lambda: client.append(DictionariesRecord(**fields(), adopted=(("json", one),))), CollectedMeanwhile)
    refused(lambda: client.append(DropRecord(**fields(), dictionaries=(two,))), match="in use")


# -- hoards


def changes(*given: tuple[str, Entry | None], cleared: bool = False, hoard: str = "files") -> HoardRecord:
    return HoardRecord(**fields(), hoard=hoard, cleared=cleared, changes=tuple(sorted(given, key=lambda one: one[0])))


def test_hoards(client: Sender, refused: Callable[..., None]) -> None:
    one, two = file_of(b"", ONE), file_of(b"", TWO)
    refused(lambda: client.append(changes(("a", one))), match="needs chunk")
    client.store(ONE, TWO)
    client.append(changes(("a", one), ("b", two)))
    refused(lambda: client.append(changes(("a", two))), Refused, "overwrite")
    refused(lambda: client.append(changes(("a", None))), Refused, "delete")
    refused(lambda: client.append(changes(("c", one), cleared=True)), Refused, "delete")
    client.append(changes(("c", one)))
    client.grant = Grant((Rule(frozenset[Right]({"add", "overwrite", "delete"}), hoards=("files",)),))
    client.append(changes(("a", two), ("b", None)))
    refused(lambda: client.append(changes(("a", one), hoard="others")), Refused, "add")
    held_now = client.repository.log.hoards.view("files").changes
    assert {name: change.entry for name, change in held_now.items()} == {b"a": two, b"b": None, b"c": one}


def checkpoint_of(client: Sender, upto: int, *kept: tuple[bytes, bytes], stored: bool = True) -> CheckpointRecord:
    entry, pages = directory_of([file_of(name, content) for name, content in kept])
    entry = msgspec.structs.replace(entry, mtime_s=0)
    if stored:
        client.store(*pages.values())
    return CheckpointRecord(**fields(), hoard="files", upto=upto, entry=entry)


def test_checkpoints_that_lie(client: Sender, refused: Callable[..., None]) -> None:
    one, two = file_of(b"", ONE), file_of(b"", TWO)
    client.store(ONE, TWO)
    client.append(changes(("a", one), ("b", two)))
    client.append(changes(("c", one)))
    client.grant = ALL
    client.append(changes(("b", None)))
    client.append(changes(("d", two)))
    client.grant = ADDING
    told = [(b"a", ONE), (b"b", TWO), (b"c", ONE)]
    for lie in ([], told[:1], [*told, (b"e", ONE)], [(b"a", TWO), *told[1:]]):
        made = checkpoint_of(client, 2, *lie)
        refused(lambda made=made: client.append(made), match="when it did not")
    later = checkpoint_of(client, 4, *told)
    refused(lambda: client.append(later), match="when it did not")
    other = msgspec.structs.replace(checkpoint_of(client, 2, *told), hoard="others")
    refused(lambda: client.append(other), match="when it did not")
    client.append(checkpoint_of(client, 2, *told))
    state = client.repository.log.hoards.view("files")
    assert state.upto == 2 and isinstance(state.base.content if state.base else None, Subtree)
    assert {name: change.entry for name, change in state.changes.items()} == {b"b": None, b"d": two}
    unstored = checkpoint_of(client, 4, (b"a", ONE), (b"c", ONE), (b"d", TWO), stored=False)
    refused(lambda: client.append(unstored), match="is not whole")
    earlier = checkpoint_of(client, 1, (b"a", ONE), (b"b", TWO))
    refused(lambda: client.append(earlier), match="when it did not")
    client.append(checkpoint_of(client, 4, (b"a", ONE), (b"c", ONE), (b"d", TWO)))
    assert client.repository.log.hoards.view("files").changes == {}


def test_log_packs_hold_the_log(client: Sender, refused: Callable[..., None]) -> None:
    client.store(ONE)
    for number in range(4):
        client.append(version(file_of(b"", ONE), name=f"v{number}"))
    values = [client.repository.store.get("log", slot_name(slot)) for slot in range(1, 5)]

    def pack(first: int, last: int, values: list[bytes]) -> tuple[str, bytes]:
        return f"log-{first:012d}-{last:012d}", frames.encode(values, "log", salt=bytes(16)).stored

    for name, value in (
        pack(1, 4, values[::-1]),
        pack(1, 3, values),
        pack(2, 4, values[:3]),
        pack(1, 5, [*values, values[0]]),
        pack(1, 2, [values[0], b"x" * 10 + values[1][-32:]]),
        pack(0, 1, values[:2]),
        ("log-000000000001-000000000004", b""),
        ("other", values[0]),
    ):
        refused(lambda name=name, value=value: client.put("hoards", name, value), match="not stored")
    client.put("hoards", *pack(1, 4, values))
    assert SLOTS > 4  # or the server would have written some by itself


# -- leases


def lease(beat: int = 1, pid: int = 7, host: bytes = digest(b"host")) -> bytes:
    return msgspec.msgpack.encode(Held(1, beat, host, pid, 99, "reading", True, (), 1))


def test_leases_of_others(client: Sender, refused: Callable[..., None]) -> None:
    name = "0123456789abcdef"
    client.put("leases", name, lease())
    client.put("leases", f"{name}.00000000", digest(ONE) + digest(TWO))
    client.put("leases", name, lease(2))  # the holder goes on
    for value in (lease(3, pid=8), lease(3, host=digest(b"other")), lease(1), b"", b"x", lease(3) + b"x"):
        refused(lambda value=value: client.put("leases", name, value))
    refused(lambda: client.put("leases", "config", lease()), match="cannot name")
    refused(lambda: client.put("leases", f"{name}.00000001", b"x"), match="no list")
    # who may not delete them is not told which there are, and so cannot end them
    assert client.gate.page(ADDING, "leases", "", 10, False) == ([], False)
    assert client.gate.page(ADDING, "leases", "0", 10, False) == ([], False)
    assert client.gate.page(ADDING, "leases", "", 10, True) == ([], False)
    assert client.gate.page(ADDING, "leases", name, 10, False) == ([(f"{name}.00000000", 64)], False)
    assert client.gate.page(ALL, "leases", "", 10, False)[0] == [(name, len(lease())), (f"{name}.00000000", 64)]
    refused(lambda: client.gate.delete(READING, "leases", [name], "delete"), Refused)
    refused(lambda: client.gate.delete(ADDING, "leases", [name], "purge"), Refused)
    client.gate.delete(ADDING, "leases", [name, f"{name}.00000000"], "delete")
    assert held(client.repository)["leases"] == []


# -- deleting, and what is not shown


def test_deleting_takes_a_record(client: Sender, refused: Callable[..., None]) -> None:
    made = client.store(ONE)
    name = made.name.hex()
    run = held(client.repository)["index"][0]
    for namespace, one in (("frames", name), ("index", run), ("dictionaries", name)):
        for how in ("delete", "soft-delete", "purge", "undelete"):
            refused(lambda a=namespace, b=one, how=how: client.gate.delete(ADDING, a, [b], how), Refused, "delete")
    for how in ("delete", "soft-delete"):
        refused(lambda how=how: client.gate.delete(ALL, "frames", [name], how), match="condemned and collected")
    client.grant = ALL
    client.append(CondemnRecord(**fields(), frames=(made.name,)))
    refused(lambda: client.gate.delete(ALL, "frames", [name], "delete"), match="condemned and collected")
    client.append(CollectRecord(**fields(), slot=1))
    client.gate.delete(ALL, "frames", [name, "00" * 32], "delete")
    assert held(client.repository)["frames"] == []
    broken = frames.encode([TWO], "other")
    client.repository.store.put("frames", broken.name.hex(), b"damaged")
    client.gate.delete(ALL, "frames", [broken.name.hex()], "soft-delete")
    assert client.gate.page(ALL, "frames", "", 9, True) == ([(broken.name.hex(), 7)], False)
    assert client.gate.delete(ALL, "frames", [broken.name.hex(), name], "undelete") == [broken.name.hex()]


def test_where_stores_are_is_told_to_nobody(client: Sender, refused: Callable[..., None]) -> None:
    config = client.repository.store.get("config", "config")
    for name in ("stores", "origin", "bundle", "anything"):
        client.repository.store.put("config", name, b"s3://bucket/secret")
    try:
        assert client.gate.page(ALL, "config", "", 9, False) == ([("config", len(config))], False)
        assert client.gate.get_many(ALL, "config", ["stores", "config", "origin"]) == [
            ("stores", None),
            ("config", config),
            ("origin", None),
        ]
        assert client.gate.sizes(ALL, "config", ["bundle", "config"]) == (None, len(config))
        for name in ("stores", "origin", "bundle", "anything"):
            with pytest.raises(ValueNotFound):
                client.gate.get(ALL, "config", name)
            with pytest.raises(ValueNotFound):
                client.gate.size(ALL, "config", name)
        for name in ("config", "stores", "new"):
            refused(lambda name=name: client.gate.put(ALL, "config", [(name, b"x")]), match="nothing for config")
            refused(lambda name=name: client.gate.create(ALL, "config", name, b"x"), match="nothing for config")
            for how in ("delete", "soft-delete", "purge", "undelete"):
                refused(lambda name=name, how=how: client.gate.delete(ALL, "config", [name], how), match="for config")
    finally:
        client.repository.store.delete("config", ["stores", "origin", "bundle", "anything"])


def test_reading_needs_its_right(client: Sender) -> None:
    made = client.store(ONE)
    name = made.name.hex()
    listing = Grant((Rule(frozenset[Right]({"list"})),))
    asks: tuple[Callable[[Grant], object], ...] = (
        lambda grant: client.gate.get(grant, "frames", name),
        lambda grant: client.gate.get_many(grant, "frames", [name]),
        lambda grant: client.gate.size(grant, "frames", name),
        lambda grant: client.gate.sizes(grant, "frames", [name]),
    )
    for ask in asks:
        ask(READING)
        with pytest.raises(Refused):
            ask(listing)
    with pytest.raises(Refused):
        client.gate.page(Grant((Rule(frozenset[Right]({"read"})),)), "frames", "", 1, False)
    elsewhere = Grant((Rule(frozenset[Right]({"list", "read", "add"}), namespaces=("index",)),))
    for refusing in (elsewhere, Grant((Rule(frozenset[Right]({"add"}), roots=("photos",)),))):
        with pytest.raises(Refused):
            client.gate.get(refusing, "frames", name)
        with pytest.raises(Refused):
            client.gate.put(refusing, "frames", [(name, made.stored)])


def test_a_read_only_server_takes_nothing(client: Sender, refused: Callable[..., None]) -> None:
    made = client.store(ONE)
    client.gate, client.grant = Gate(client.repository, True), ALL
    refused(lambda: client.put("frames", made.name.hex(), made.stored), StoreReadOnly)
    refused(lambda: client.append(version(file_of(b"", ONE))), StoreReadOnly)
    refused(lambda: client.put("leases", "0" * 16, lease()), StoreReadOnly)
    for namespace in ("frames", "leases"):
        refused(lambda namespace=namespace: client.gate.delete(ALL, namespace, ["0" * 16], "delete"), StoreReadOnly)


def test_a_damaged_value_is_not_served(client: Sender) -> None:
    from spraydry.errors import CorruptData

    made = client.store(ONE)
    client.repository.store.put("frames", made.name.hex(), made.stored[:-1] + b"x")
    for ask in (
        lambda: client.gate.get(ALL, "frames", made.name.hex()),
        lambda: client.gate.get_many(ALL, "frames", [made.name.hex()]),
    ):
        with pytest.raises(CorruptData, match="is damaged"):
            ask()


def test_info_of_frames_is_what_the_header_says(client: Sender) -> None:
    made = client.store(ONE, TWO)
    assert client.repository.catalog.frame(made.name) == frame_info(made.name, made.header, len(made.stored))
