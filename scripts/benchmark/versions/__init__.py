"""What scripts/bench-versions measures: a module for each phase, found by its being here.

A phase has a docstring, whose first line is its title, and a function `measure(setting)` that yields a Row for each
number; it makes what it needs below `setting.folder`, which goes away at the end.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator

from benchmark.versions.phase import Row, Setting

Measure = Callable[[Setting], Iterator[Row]]


def phases() -> list[str]:
    """The names of the phases there are."""
    return sorted(found.name for found in pkgutil.iter_modules(__path__) if found.name != "phase")


def load(name: str) -> tuple[str, Measure]:
    """The title of a phase, and what measures it."""
    module = importlib.import_module(f"benchmark.versions.{name}")
    measure: Measure = module.measure
    return (module.__doc__ or name).split("\n")[0].rstrip("."), measure
