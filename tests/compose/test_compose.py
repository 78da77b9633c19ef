"""`compose` and `split`: versions of other versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spraydry.actions.collect import gc
from spraydry.actions.compose import compose as composing
from spraydry.actions.compose.compose import compose, split
from spraydry.actions.compose.evaluate import found_by
from spraydry.actions.remove import remove
from spraydry.actions.verify import verify
from spraydry.errors import (
    ExpressionError,
    PathNotFound,
    RootNotFound,
    StoreUnavailable,
    UsageError,
    VersionExists,
)
from spraydry.format.entry import DIRECTORY
from spraydry.repository.repository import Repository
from tests.repositories import Run, caller
from tests.small_versions import read_all
from tests.versions import make_version

BASE = {b"a": b"1", b"opt": {b"bin": b"2"}, b"secret": {b"key": b"3"}, b"two words": b"4"}
MODELS = {b"weights": {b"w1": b"5", b"w2": b"6"}, b"a": b"7"}


@pytest.fixture
def two(repository: Repository) -> Repository:
    make_version(repository, "base", BASE)
    make_version(repository, "models", MODELS)
    return repository


def files(repository: Repository, address: str) -> dict[str, bytes]:
    return read_all(repository, address)


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("base", {"a": b"1", "opt/bin": b"2", "secret/key": b"3", "two words": b"4"}),
        ("base@v1 - secret - opt/bin", {"a": b"1", "two words": b"4"}),
        ("base + models - secret - weights", {"a": b"7", "opt/bin": b"2", "two words": b"4"}),
        ("models + base - secret - weights", {"a": b"1", "opt/bin": b"2", "two words": b"4"}),
        ("base:opt + models:weights -> w", {"bin": b"2", "w/w1": b"5", "w/w2": b"6"}),
        ("base:opt + models:weights -> bin", {"bin/w1": b"5", "bin/w2": b"6"}),
        ("base:opt/bin", {"bin": b"2"}),
        ("models:a -> x/y + base:a -> x/z", {"x/y": b"7", "x/z": b"1"}),
        ("base:'two words' -> 'a - b' + models:weights/w1", {"a - b": b"4", "w1": b"5"}),
        ("models:weights -> /", {"w1": b"5", "w2": b"6"}),
    ],
)
def test_expressions(two: Repository, expression: str, wanted: dict[str, bytes]) -> None:
    made = compose(two, "new", expression)
    assert made.new and str(made.version) == "new@v1" and made.files == len(wanted)
    assert files(two, "new") == wanted
    assert verify(two).sound
    again = compose(two, "again", made.expression)  # with every version in it
    assert again.version is not None and made.version is not None
    assert again.version.record.entry == made.version.record.entry
    assert (again.new_bytes, again.expression) == (0, made.expression)


@pytest.mark.parametrize(
    ("expression", "place", "what"),
    [
        ("base + modls", 7, "no root 'modls'; there is models"),
        ("base@v9 + models", 0, "no version 'v9'"),
        ("base + models:wieghts -> x", 7, "there is weights"),
        ("base - opt/nothing", 7, "no 'opt/nothing' to cut"),
        ("base - secret - secret/key", 16, "no 'secret/key' to cut"),
        ("base + models:a -> .", 7, "needs a name"),
    ],
)
def test_what_is_not_there(two: Repository, expression: str, place: int, what: str) -> None:
    head = two.log.head
    with pytest.raises(ExpressionError, match=what) as raised:
        compose(two, "new", expression)
    assert raised.value.place == place
    assert two.log.head == head


def test_an_equal_version_makes_none(two: Repository) -> None:
    assert compose(two, "new", "base - secret").new
    again = compose(two, "new", "base - secret")
    assert (again.new, again.named, str(again.version)) == (False, False, "new@v1")
    named = compose(two, "new", "base - secret", name="same")
    assert (named.new, named.named, str(named.version)) == (False, True, "new@same")
    with pytest.raises(VersionExists):
        compose(two, "new", "base", name="same")
    with pytest.raises(UsageError):
        compose(two, "no/name", "base")


def test_a_dry_run_changes_nothing(two: Repository) -> None:
    head, frames = two.log.head, [one.name for one in two.store.list("frames")]
    made = compose(two, "new", "base + models -> m", dry_run=True)
    assert made.new and made.version is None and made.new_bytes > 0
    assert not compose(two, "base", "base", dry_run=True).new
    assert split(two, "base:opt", "opt", dry_run=True).new
    assert (two.log.head, [one.name for one in two.store.list("frames")]) == (head, frames)
    assert compose(two, "new", "base + models -> m").new_bytes == made.new_bytes


def test_only_folders_are_stored(two: Repository) -> None:
    big = bytes(range(256)) * 4000
    make_version(two, "big", {b"one": {b"f": big}, b"two": {b"f": big[::-1]}})
    made = compose(two, "new", "base + big -> there")
    assert 0 < made.new_bytes < 2000


def test_what_versions_say_of_themselves(two: Repository) -> None:
    def as_from(root: str, tree: dict[bytes, bytes], **fields: object) -> None:
        record = make_version(two, root + "-plain", tree).record
        two.log.append(
            lambda previous, _: msgspec.structs.replace(record, previous=previous, root=root, name="v1", **fields)
        )

    as_from("one", {b"x": b"1"}, users=((0, "root"), (7, "ann")), groups=((3, "staff"),), spec="fixed:size=32K")
    as_from("other", {b"y": b"2"}, users=((7, "bob"), (9, "eve")), incomplete=True)
    version = compose(two, "new", "one + other").version
    assert version is not None
    record = version.record
    assert record.users == ((0, "root"), (7, "ann"), (9, "eve"))
    assert (record.groups, record.spec, record.incomplete) == (((3, "staff"),), "fixed:size=32K", True)
    assert record.made_by.endswith(" compose")
    assert not compose(two, "whole", "one").incomplete


def test_split(two: Repository) -> None:
    made = split(two, "models:weights", "weights")
    assert (made.new, made.expression, made.new_bytes) == (True, "models@v1:weights", 0)
    assert files(two, "weights") == {"w1": b"5", "w2": b"6"}
    assert not split(two, "models@v1:weights", "weights").new
    single = split(two, "models:a", "single")
    assert single.version is not None and single.version.record.entry.kind != DIRECTORY
    with two.open_file("single") as stream:
        assert stream.read() == b"7"
    assert compose(two, "new", "single + single -> d/e").files == 2
    assert files(two, "new") == {"single": b"7", "d/e": b"7"}
    assert verify(two).sound
    with pytest.raises(UsageError, match="whole version"):
        split(two, "models", "x")
    with pytest.raises(RootNotFound):
        split(two, "modls:x", "x")


def test_the_command_lines(
    repository_path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPRAYDRY_REPO", repository_path)
    with Repository.open(repository_path, create=True) as repository:
        make_version(repository, "base", BASE)
        make_version(repository, "models", MODELS)
    spraydry: Run = caller(capsys)
    _, out, _ = spraydry("compose", "new", "base + models:weights -> opt/w - secret", "--dry-run")
    assert out.startswith("new: a new version would be made of base@v1 + models@v1:weights -> opt/w - secret\n")
    _, out, _ = spraydry("compose", "new", "base + models:weights -> opt/w - secret", "--as", "first")
    assert out.startswith("new@first is there, made of base@v1 + models@v1:weights -> opt/w - secret\n  5 files, 5 B\n")
    _, out, _ = spraydry("compose", "new", "base + models:weights -> opt/w - secret", "--json")
    assert json.loads(out) == {**json.loads(out), "version": "first", "new": False, "files": 5, "new_bytes": 0}
    _, out, err = spraydry("compose", "new", "base + modls -> x", code=4)
    assert out == ""
    assert err == "spraydry: there is no root 'modls'; there is models\n  base + modls -> x\n         ^\n"
    _, _, err = spraydry("compose", "new", "base:\u4e2d + \x1b", code=4)
    assert err.splitlines()[1:] == ["  base:\u4e2d + \\x1b", "  ^"]
    _, _, err = spraydry("compose", "new", "'\u4e2d\x1b' -> x y", code=2)
    assert err.splitlines()[1:] == ["  '\u4e2d\\x1b' -> x y", "  " + " " * 14 + "^"]
    _, _, err = spraydry("compose", "new", "", code=2)
    assert len(err.splitlines()) == 1
    _, out, _ = spraydry("split", "base:opt", "tools", "--json")
    assert json.loads(out)["expression"] == "base@v1:opt"
    _, out, _ = spraydry("ls", "tools")
    assert "bin" in out


def test_a_repository_that_cannot_be_written(two: Repository, repository_path: str, tmp_path: Path) -> None:
    two.close()
    with Repository.open(repository_path, read_only=True) as repository:
        assert compose(repository, "new", "base + models", dry_run=True).new


def test_what_an_expression_gives_is_readable_as_long_as_it_is_wanted(two: Repository) -> None:
    head = two.log.head
    with found_by(two, "base - secret + models:weights -> opt/w") as (found, slots):
        assert slots == [two.log.find("base").made_in, two.log.find("models").made_in]
        assert str(found.version) == "base@v1 - secret + models@v1:weights -> opt/w"
        held = {one.path for one in two.walk(found) if one.entry.file_digest is not None}
        assert held == {b"a", b"opt/bin", b"opt/w/w1", b"opt/w/w2", b"two words"}
        with pytest.raises(UsageError, match="composed from already"), found_by(two, "models - a"):
            pass
        with found_by(two, "models:weights") as (other, slots):  # an address needs nothing
            assert (str(other.version), slots) == ("models@v1", [two.log.find("models").made_in])
    with found_by(two, "models - a") as (found, _):
        assert [one.path for one in two.walk(found)][1:] == [b"weights", b"weights/w1", b"weights/w2"]
    assert two.log.head == head
    for text, error in (("nothing", RootNotFound), ("base:it's", PathNotFound), ("base:a'b' - c", ExpressionError)):
        with pytest.raises(error), found_by(two, text):
            pass


def test_what_is_collected_meanwhile_is_noticed(
    two: Repository, repository_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = composing.commit

    def commit(*arguments: Any) -> Any:
        with Repository.open(repository_path) as other:
            remove(other, ["models@v1"])
            gc(other, grace_ns=0, below=1.0)
        return made(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(composing, "commit", commit)
        with pytest.raises(StoreUnavailable, match="run it again"):
            compose(two, "new", "base + models")
    two.refresh()
    assert two.roots() == ["base"] and verify(two).sound
    with pytest.raises(ExpressionError, match="no versions any more"):
        compose(two, "new", "base + models")
