"""A benchmark of phases: modules of a package, found by their being there, measured one after another.

A phase has a docstring, whose first line is its title, and a function `measure(setting)` that yields a Row for each
number; it makes what it needs below `setting.folder`, which goes away at the end.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

from benchmark import layout, system, workfolder
from benchmark.backends import Backend, python_of
from benchmark.corpora import CorpusError
from benchmark.peer import PeerError
from benchmark.peers import Spraydry
from benchmark.phase import Row, Setting
from benchmark.system import say
from benchmark.workfolder import work_folder

Measure = Callable[[Setting], Iterator[Row]]


def phases(package: ModuleType) -> list[str]:
    """The names of the phases there are."""
    return sorted(found.name for found in pkgutil.iter_modules(package.__path__) if not found.name.startswith("_"))


def load(package: ModuleType, name: str) -> tuple[str, Measure]:
    """The title of a phase, and what measures it."""
    module = importlib.import_module(f"{package.__name__}.{name}")
    measure: Measure = module.measure
    return (module.__doc__ or name).split("\n")[0].rstrip("."), measure


def _arguments(package: ModuleType, about: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    known = phases(package)
    add("--phases", default=",".join(known), help=f"of {', '.join(known)} (default: all)")
    add("--repeat", type=int, metavar="N", help="samples of each number, of which the median is shown (default 5)")
    add("--scale", type=float, metavar="F", help="part of the files and chunks (default 1)")
    add("--quick", action="store_true", help="--scale 0.02 --repeat 2")
    add("--limit", type=float, default=3600, metavar="SECONDS", help="of one command (default 3600)")
    add("--work", metavar="DIR", help="for corpora and repositories (default: spraydry-bench in the XDG cache folder)")
    add("--spraydry", metavar="FILE", help="the program (default: .venv/bin/spraydry of this checkout, else on PATH)")
    add("--markdown", metavar="FILE", help="write the result there too")
    add("--json", metavar="FILE", help="write the result with every sample there too")
    add("--keep", action="store_true", help="leave the repositories in the work folder")
    given = parser.parse_args()
    given.phases = [word for word in given.phases.split(",") if word]
    if unknown := set(given.phases) - set(known):
        parser.error(f"not known: {', '.join(sorted(unknown))} (choose from {', '.join(known)})")
    given.scale = given.scale or (0.02 if given.quick else 1.0)
    given.repeat = given.repeat or (2 if given.quick else 5)
    given.work = os.path.realpath(given.work or workfolder.default())
    Spraydry.program = given.spraydry or workfolder.program()
    Backend.python = python_of(Spraydry.program)
    return given


class _Result:
    """The rows of one phase so far."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.rows: list[Row] = []
        self.errors: list[str] = []

    def section(self, as_markdown: bool) -> list[str]:
        table = [["", "median", "least to most"], *(row.cells() for row in self.rows)]
        verdicts = [verdict for row in self.rows if (verdict := row.verdict())]
        return layout.section(self.title, table, verdicts, self.errors, as_markdown)

    def plain(self) -> dict[str, object]:
        verdicts = [verdict._asdict() for row in self.rows if (verdict := row.verdict())]
        return {"title": self.title, "rows": [row._asdict() for row in self.rows], "goals": verdicts} | (
            {"errors": self.errors} if self.errors else {}
        )


def main(package: ModuleType, about: str | None) -> int:
    """What a script does: measure the phases of a package that its arguments name, and tell; the exit code."""
    given = _arguments(package, about)
    results: dict[str, _Result] = {}
    remarks = [f"Scale {given.scale:g}: no verdict counts."] if given.scale != 1 else []
    os.makedirs(given.work, exist_ok=True)
    head: layout.Head = {
        "machine": system.machine(given.work),
        "run": {"date": system.today(), "scale": f"{given.scale:g}", "samples": str(given.repeat)},
    }

    def report(as_markdown: bool) -> str:
        lines = [*layout.head_lines(head, as_markdown), "", *layout.bullets(remarks, as_markdown)]
        for result in results.values():
            lines += result.section(as_markdown)
        return "\n".join(lines) + "\n"

    def write() -> None:
        """After each row: what there is so far."""
        if given.markdown:
            with open(given.markdown, "w") as file:
                file.write(report(as_markdown=True))
        if given.json:
            with open(given.json, "w") as file:
                told = {name: result.plain() for name, result in results.items()}
                json.dump({**head, "remarks": remarks, "phases": told}, file, indent=1)

    with work_folder(given.work, given.keep) as folder, open(os.path.join(given.work, "log"), "wb") as log:
        if reason := Spraydry(folder, log).missing():
            sys.exit(f"{os.path.basename(sys.argv[0])}: {reason}")
        head["peers"] = {"spraydry": Spraydry(folder, log).version()}
        corpora = os.path.join(given.work, "corpora")
        setting = Setting(folder, corpora, log, given.repeat, given.scale, given.limit)
        try:
            for name in given.phases:
                title, measure = load(package, name)
                results[name] = _Result(title)
                try:
                    for row in measure(setting):
                        results[name].rows.append(row)
                        say(f"{name}: {row.what.strip()}, {row.median:.4g} {row.unit}")
                        write()
                except (PeerError, CorpusError, OSError) as error:
                    results[name].errors.append(str(error))
                    say(f"{name}: {error}")
        except KeyboardInterrupt:
            remarks.append("Interrupted: not complete.")
        finally:
            write()
            print(report(as_markdown=False), end="")
    complete = not any(result.errors for result in results.values()) and "Interrupted: not complete." not in remarks
    return 0 if complete else 1
