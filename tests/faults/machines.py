"""A machine that uses a repository from the command line, in processes of its own, with a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from spraydry.actions.verify import verify
from spraydry.repository.repository import Repository
from tests.ingest.trees import differences

SPRAYDRY = [sys.executable, "-c", "from spraydry.cli import main; main()"]
_HOMES = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME")
_OURS = ("AWS_", "PG", "SPRAYDRY_")
_ENDS_WITHIN_S = 600


class Machine:
    """Has nothing but a repository's URL and what its server needs; every catalog and queue begins empty."""

    def __init__(self, home: Path, url: str, environment: Mapping[str, str]) -> None:
        self.home = home
        self.url = url
        self.settings = {**environment, "SPRAYDRY_REPO": url}
        for name in _HOMES:
            (home / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            self.settings[name] = str(home / name)

    @property
    def environment(self) -> dict[str, str]:
        """What its processes run with."""
        others = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        return {**others, **self.settings}

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """A command that runs on."""
        return subprocess.Popen(
            [*SPRAYDRY, *map(str, arguments)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str | Path, code: int = 0) -> str:
        """What a command prints; with another `code` the one line it must end with."""
        return ended(self.start(*arguments), code)

    def told(self, *arguments: str | Path, code: int = 0) -> Any:
        """What a command says with --json."""
        process = self.start(*arguments, "--json")
        out, err = process.communicate(timeout=_ENDS_WITHIN_S)
        assert process.returncode == code, (arguments, out, err)
        return json.loads(out)

    @contextmanager
    def opened(self, **options: Any) -> Iterator[Repository]:
        """The repository as this machine has it, in this process."""
        with self.entered(), Repository.open(self.url, **options) as repository:
            yield repository

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This process has the machine's environment."""
        with pytest.MonkeyPatch.context() as patch:
            for name in set(os.environ) - set(self.environment):
                patch.delenv(name)
            for name, value in self.settings.items():
                patch.setenv(name, value)
            yield


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for a command; what it printed, or the one line of its error where it ended with such a `code`."""
    out, err = process.communicate(timeout=_ENDS_WITHIN_S)
    assert process.returncode == code, (process.args, process.returncode, out, err)
    if code == 0:
        return out
    lines = err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("spraydry: ") and len(err) < 500, err
    return err


def check_whole(machine: Machine, versions: Mapping[str, Path]) -> None:
    """Raises AssertionError unless these versions, and only they, are there as the folders have it, and all that is
    stored is whole."""
    with machine.opened(read_only=True) as repository:
        there = {str(version) for root in repository.roots() for version in repository.versions(root)}
        assert there == set(versions)
        for version, folder in versions.items():
            assert differences(repository, repository.resolve(version).version, folder) == []
        check_sound(repository)


def check_sound(repository: Repository) -> None:
    """Raises AssertionError, telling what is wrong, unless a verify finds nothing."""
    found = verify(repository)
    assert found.sound, (found.damaged_frames, found.damage, found.other, found.unindexed)
    assert repository.damaged_runs == {}
