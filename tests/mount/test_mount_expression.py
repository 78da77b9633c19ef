"""Mounts of expressions, through the kernel: nothing of them is stored."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from spraydry.actions.compose.compose import compose
from spraydry.actions.image import image_path
from spraydry.mount import engines
from spraydry.repository.repository import Repository
from tests.mount.conftest import SPRAYDRY, Run, only_erofs, only_fuse, wait_until
from tests.mount.test_mount import made_tree, seen
from tests.versions import make_version

pytestmark = pytest.mark.fuse

Spraydry = Callable[..., Run]
EXPRESSION = "source + other:in -> new/place + source -> dir/again - dir/big - hard"


def _state(repository: Repository) -> tuple[tuple[int, bytes], int, int]:
    repository.refresh()
    counts = [sum(1 for _ in repository.store.list(namespace)) for namespace in ("frames", "index")]
    return repository.log.head, counts[0], counts[1]


def test_an_expression_is_what_composing_gives(
    repository: Repository, spraydry: Spraydry, tmp_path: Path, point: Path, engine: str
) -> None:
    spraydry("ingest", str(made_tree(tmp_path / "source")))
    make_version(repository, "other", {b"in": {b"f": b"f", b"deep": {b"g": random.randbytes(200_000)}}, b"out": b"o"})
    before = _state(repository)
    spraydry("mount", EXPRESSION, str(point))
    found, totals = seen(point), os.statvfs(point).f_files
    assert (point / "new" / "place" / "deep" / "g").stat().st_size == 200_000
    # One name of each of the two inodes is cut; the part that is there twice has its own.
    assert (point / "dir" / "file").stat().st_nlink == 1
    again = point / "dir" / "again"
    assert (again / "hard").stat().st_nlink == 2
    assert (again / "hard").stat().st_ino == (again / "dir" / "file").stat().st_ino
    if engine == "fuse":
        named = os.getxattr(point / "new", "user.spraydry.version")
        assert named == b"source@v1 + other@v1:in -> new/place + source@v1 -> dir/again - dir/big - hard"
    spraydry("umount", str(point))
    assert _state(repository) == before
    compose(repository, "stored", EXPRESSION)
    spraydry("mount", "stored", str(point))
    assert (seen(point), os.statvfs(point).f_files) == (found, totals)


@only_fuse
def test_an_address_is_no_expression(repository: Repository, spraydry: Spraydry, point: Path) -> None:
    make_version(repository, "r", {b"a - b": {b"x": b"1"}, b"it's": {b"y": b"2"}, b"a": {b"z": b"3"}})
    for address, name in (("r:a - b", "x"), ("r:it's", "y"), ("r:'a - b'", "x"), ('r - "it\'s"', "a")):
        spraydry("mount", address, str(point))
        assert name in os.listdir(point)
        spraydry("umount", str(point))
    failed = spraydry("mount", "r:its'", str(point), code=4)
    assert 'holds no "its\'"' in failed.stderr


@only_fuse
def test_where_an_expression_is_wrong(repository: Repository, spraydry: Spraydry, point: Path) -> None:
    make_version(repository, "r", {b"a": {b"x": b"1"}})
    for front in ((), ("--foreground",)):
        command = [*SPRAYDRY, "mount", *front, "r + q -> x", str(point)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert ran.returncode == 4
        assert ran.stderr.splitlines() == [
            "spraydry: there is no root 'q'; there is r",
            "  r + q -> x",
            "      ^",
        ]
    assert os.listdir(point) == []


@only_erofs
def test_an_image_of_an_expression_is_made_beside_the_mount(
    repository: Repository, spraydry: Spraydry, point: Path
) -> None:
    many = {b"%05d" % number: {b"a": b"x", b"b": b"y"} for number in range(engines.AT_ONCE_INODES // 3 + 100)}
    make_version(repository, "r", {b"many": many, b"cut": b""})
    mounted = spraydry("mount", "--engine", "auto", "r - cut", str(point), "--allow-other")
    assert "engine fuse" in mounted.stdout
    version = compose(repository, "same", "r - cut").version
    path = image_path(repository, repository.resolve(str(version)))
    wait_until(lambda: os.path.exists(path))
    spraydry("umount", str(point))
    mounted = spraydry("mount", "--engine", "auto", "r - cut", str(point), "--allow-other")
    assert "its image was there" in mounted.stdout
    assert os.listdir(point) == ["many"]


@only_fuse
def test_names_that_are_no_text(repository: Repository, spraydry: Spraydry, point: Path) -> None:
    make_version(repository, "r", {b"\xff\n x": {b"f": b"1"}, b"g": b"2"})
    spraydry("mount", "r:'" + os.fsdecode(b"\xff\n x") + "' -> 'a\n\udcfe'", str(point))
    assert os.listdir(os.fsencode(point)) == [b"a\n\xfe"]
    path = os.path.join(os.fsencode(point), b"a\n\xfe", b"f")
    with open(path, "rb") as file:
        assert file.read() == b"1"
    assert os.getxattr(path, "user.spraydry.version") == b'"r@v1:\xff\n x" -> "a\n\xfe"'


def test_what_it_is_made_of_stays_while_it_is_mounted(
    repository: Repository, spraydry: Spraydry, point: Path, engine: str, rng: random.Random
) -> None:
    one, other = rng.randbytes(300_000), rng.randbytes(300_000)
    make_version(repository, "one", {b"f": one, b"cut": b"x"})
    make_version(repository, "other", {b"g": other})
    spraydry("mount", "one - cut + other -> in", str(point), "--allow-other")
    spraydry("rm", "one", "other", "--all")
    spraydry("gc", "--grace", "0")
    assert (point / "f").read_bytes() == one and (point / "in" / "g").read_bytes() == other
    spraydry("umount", str(point))
    spraydry("gc", "--grace", "0")
    repository.refresh()
    assert not list(repository.store.list("frames"))
