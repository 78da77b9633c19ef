"""What lies behind a server: far stores on real servers of their own, and stores of which one is damaged."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from spraydry import Hoard
from spraydry.errors import CorruptData, UsageError
from tests.mount.conftest import SPRAYDRY, fuse
from tests.repositories import Run, caller, check, filled_source
from tests.servers import server_or_skip
from tests.test_restore import contents
from tests.web.serving import Running, serving

__all__ = ["fuse"]


@pytest.fixture
def spraydry(capsys: pytest.CaptureFixture[str]) -> Run:
    return caller(capsys)


def _homes(folder: Path) -> dict[str, str]:
    return {name: str(folder / name) for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME")}


# -- far stores


@pytest.fixture(scope="module", params=["sshd", "ceph"])
def far(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Serves a new repository that lies on a real server of sftp:, or s3:, which the clients know nothing of."""
    folder = tmp_path_factory.mktemp(request.param)
    with (
        server_or_skip(request.param, folder / "far") as behind,
        serving(
            folder / "served", SPRAYDRY_REPO=f"{behind.url}/served", **behind.environment, **_homes(folder)
        ) as running,
    ):
        yield running


def test_versions(far: Running, tmp_path: Path, spraydry: Run) -> None:
    source = filled_source(tmp_path, 6_000_000)
    spraydry("--repo", far.url, "ingest", source)
    check(far.url, source)
    spraydry("--repo", far.url, "restore", "source", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(source)
    spraydry("--repo", tmp_path / "here.sqlite", "pull", far.url)
    check(str(tmp_path / "here.sqlite"), source)
    (source / "more").write_bytes(random.randbytes(1 << 20))
    spraydry("--repo", tmp_path / "here.sqlite", "ingest", source)
    spraydry("--repo", tmp_path / "here.sqlite", "push", far.url)
    check(far.url, source)
    spraydry("--repo", far.url, "verify")


@pytest.mark.fuse
def test_a_mount(far: Running, tmp_path: Path, spraydry: Run, fuse: None) -> None:
    source, point = filled_source(tmp_path, 3_000_000), tmp_path / "mnt"
    point.mkdir()
    spraydry("--repo", far.url, "ingest", source, "--root", "mounted")
    subprocess.run([*SPRAYDRY, "--repo", far.url, "mount", "mounted", point, "--engine", "fuse"], check=True)
    try:
        assert contents(point) == contents(source)
    finally:
        subprocess.run([*SPRAYDRY, "umount", point], check=True)


def test_a_hoard(far: Running, tmp_path: Path, spraydry: Run) -> None:
    long = random.Random(3).randbytes(9 << 20)
    (tmp_path / "long").write_bytes(long)
    spraydry("--repo", far.url, "put", tmp_path / "long", "h/long")
    spraydry("--repo", far.url, "get", "h/long", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == long
    small = {f"{number}": b"%d" % number for number in range(300)}
    with Hoard("h", far.url) as hoard:
        hoard.put_many(small.items())
        with hoard.transaction() as change:
            change.put(b"changed", "7")
            change.delete("8")
        small["7"] = b"changed"
        del small["8"]
        assert {key: hoard[key].read() for key in hoard if key != "long"} == small
        with hoard["long"] as stream:
            stream.seek(5 << 20)
            assert stream.read(100_000) == long[5 << 20 :][:100_000]


# -- damage


@pytest.fixture
def stores(tmp_path: Path, spraydry: Run) -> list[Path]:
    """Two stores with a copy of each frame on both."""
    made = [tmp_path / "one", tmp_path / "two"]
    spraydry("--repo", f"dir:{made[0]}", "init", f"dir:{made[1]}", "--copies", "2")
    return made


@pytest.fixture
def mirrored(tmp_path: Path, stores: list[Path]) -> Iterator[Running]:
    with serving(tmp_path / "served", SPRAYDRY_REPO=f"dir:{stores[0]}", **_homes(tmp_path / "served")) as running:
        yield running


def _damage(store: Path) -> list[str]:
    """Change bytes in the middle of the longest frame, and remove the next one; their names."""
    frames = [path for path in (store / "frames").rglob("*") if path.is_file()]
    frames.sort(key=lambda path: path.stat().st_size, reverse=True)
    changed = bytearray(frames[0].read_bytes())
    changed[len(changed) // 2 : len(changed) // 2 + 8] = b"damaged!"
    frames[0].chmod(0o600)
    frames[0].write_bytes(changed)
    frames[1].unlink()
    return [frames[0].name, frames[1].name]


def test_damage_where_another_copy_is(mirrored: Running, stores: list[Path], tmp_path: Path, spraydry: Run) -> None:
    """On either store: whoever reads over HTTP notices nothing, and neither verify nor repair finds anything."""
    source = filled_source(tmp_path, 4_000_000)
    spraydry("--repo", mirrored.url, "ingest", source)
    for store in stores:
        damaged = _damage(store)
        spraydry("--repo", mirrored.url, "verify")
        spraydry("--repo", mirrored.url, "repair")
        check(mirrored.url, source)
        spraydry("--repo", f"dir:{stores[0]}", "heal", "--read")
        assert {name for name in damaged if list(store.rglob(name))} == set(damaged)
    assert "healed where they lie" in spraydry("--repo", mirrored.url, "heal", code=UsageError.exit_code)[2]


def test_damage_that_another_repository_mends(
    mirrored: Running, stores: list[Path], tmp_path: Path, spraydry: Run
) -> None:
    source = filled_source(tmp_path, 4_000_000)
    backup = str(tmp_path / "backup.sqlite")
    spraydry("--repo", mirrored.url, "ingest", source)
    spraydry("--repo", backup, "pull", mirrored.url)
    for store in stores:
        _damage(store)
    spraydry("--repo", mirrored.url, "verify", code=CorruptData.exit_code)
    spraydry("--repo", mirrored.url, "repair", code=CorruptData.exit_code)
    spraydry("--repo", mirrored.url, "repair", "--from", backup, "--write")
    check(mirrored.url, source)
