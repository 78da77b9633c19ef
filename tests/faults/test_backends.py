"""A repository works whole on each backend: by itself, from a machine that never saw it, and from two at once."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

from spraydry.mount.erofs import ErofsUnavailable, check
from spraydry.mount.mounts import mounted_at
from spraydry.mount.options import MountOptions
from tests.faults.conftest import NewMachine
from tests.faults.machines import Machine, check_sound, check_whole, ended
from tests.ingest.trees import differences, fill
from tests.mount.test_mount import made_tree, seen
from tests.small_versions import small_versions


def check_mounts(machine: Machine, source: Path, folder: Path) -> None:
    """Every engine there is shows the newest version of the root `source`."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return
    engines = ["fuse"]
    try:
        check("/", MountOptions(cache_bytes=0, allow_other=True))
        engines.append("erofs")
    except ErofsUnavailable:
        pass
    for engine in engines:
        point = folder / engine
        point.mkdir()
        machine.run("mount", "source", point, "--engine", engine)
        try:
            assert seen(point) == seen(source)
        finally:
            machine.run("umount", point)
        assert mounted_at(str(point)) is None


def test_everything_a_repository_does(new_machine: NewMachine, tmp_path: Path, rng: random.Random) -> None:
    here = new_machine()
    source = made_tree(tmp_path / "source")
    fill(source, rng, 40)
    here.run("init")
    assert here.told("ingest", source)["version"] == "v1"
    (source / "dir/new").write_bytes(rng.randbytes(300_000))
    (source / "hard").unlink()
    assert here.told("ingest", source)["version"] == "v2"

    there = new_machine()
    log = there.run("log", "source").split()
    assert "source@v1" in log and "source@v2" in log
    names = there.run("ls", "source@v1").split()
    assert "hard" in names and "hard" not in there.run("ls", "source").split()
    check_mounts(there, source, tmp_path)
    there.run("restore", "source", tmp_path / "restored")
    assert seen(tmp_path / "restored") == seen(source)

    with here.opened() as repository:
        small_versions(repository, tmp_path / "small", random.Random(1), 25, files=8)
    assert "all is whole" in there.run("verify")
    trained = there.told("train", "small", "--size", "16K")
    assert any(gain["pays"] for gain in trained["classes"]), trained
    assert here.told("recompress")["saved_bytes"] > 0
    there.run("rm", "small@v7", "source@v1")
    log = here.run("log", "small").split()
    assert "small@v8" in log and "small@v7" not in log

    for how in ((), ("--from-frames",)):
        shutil.rmtree(there.home / "XDG_CACHE_HOME", ignore_errors=True)  # sqlite keeps its catalog with it
        assert there.told("catalog", "rebuild", *how)["chunks"] > 50
        with there.opened(read_only=True) as repository:
            assert differences(repository, repository.log.find("source"), source) == []
            assert differences(repository, repository.log.find("small"), tmp_path / "small") == []
            check_sound(repository)


# -- two machines at once


def at_once(*running: tuple[Machine, Path]) -> dict[str, Path]:
    """Two machines ingest at the same time, into the root `r`; the versions they made, or found already there."""
    started = [(machine.start("ingest", source, "--root", "r", "--json"), source) for machine, source in running]
    made = {}
    for process, source in started:
        told = json.loads(ended(process))
        made[f"r@{told['version']}"] = source
    return made


def test_two_machines_at_once(new_machine: NewMachine, tmp_path: Path) -> None:
    """Of one tree, then of two that have much in common; neither waits for the other, each has the other's."""
    trees = [tmp_path / name for name in ("same", "left", "right")]
    for number, tree in enumerate(trees):
        fill(tree, random.Random(99), 40)
        fill(tree / "own", random.Random(number), 40)
        (tree / "large").write_bytes(random.Random(number).randbytes(2_000_000))
    same, left, right = trees
    here, there = new_machine(), new_machine()
    here.run("init")
    made = at_once((here, same), (there, same))
    assert made == {"r@v1": same} or made == {"r@v1": same, "r@v2": same}
    different = at_once((here, left), (there, right))
    assert len(different) == 2
    made |= different
    for machine in (here, there):
        assert set(made) <= set(machine.run("log", "r").split())
        assert "all is whole" in machine.run("verify")
    check_whole(new_machine(), made)
