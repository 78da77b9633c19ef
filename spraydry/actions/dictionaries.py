"""All dictionaries at hand: shipped, stored and adopted, with what they are used for."""

from __future__ import annotations

from dataclasses import dataclass

from spraydry.format.digest import digest
from spraydry.format.version import DictionariesRecord
from spraydry.repository.dictionaries import Shipped, gains, shipped
from spraydry.repository.repository import Repository


@dataclass(frozen=True)
class Known:
    """A dictionary. `classes` are those it was ever adopted, used or made for, `adopted` those whose new frames use it.

    `frames` use it now; they hold `plain_bytes` in `stored_bytes`. `gain` is the part it was found to save in this
    repository when it was adopted, None where that is not known. `shipped` is its description where it comes with
    spraydry. `damaged`: what is stored under its name is something else, and frames that need it cannot be read.
    """

    digest: bytes
    size: int
    classes: tuple[str, ...]
    adopted: tuple[str, ...]
    stored: bool
    damaged: bool
    frames: int
    plain_bytes: int
    stored_bytes: int
    gain: float | None
    shipped: Shipped | None

    @property
    def missing(self) -> bool:
        """Whether frames or new versions need it although it is not stored."""
        return not self.stored and bool(self.frames or self.adopted)


def dictionaries(repository: Repository) -> list[Known]:
    """Every dictionary that is stored, shipped, adopted or named by a frame, those in use first."""
    of_shipped = {one.digest: one for one in shipped()}
    sizes = {bytes.fromhex(stored.name): stored.size for stored in repository.store.list("dictionaries")}
    classes: dict[bytes, set[str]] = {name: {one.frame_class} for name, one in of_shipped.items()}
    for record in repository.log.records:
        if isinstance(record, DictionariesRecord):
            for frame_class, name in record.adopted:
                classes.setdefault(name, set()).add(frame_class)
    used: dict[bytes, list[int]] = {}
    for usage in repository.catalog.usage():
        if usage.dictionary is not None:
            classes.setdefault(usage.dictionary, set()).add(usage.frame_class)
            sums = used.setdefault(usage.dictionary, [0, 0, 0])
            for place, value in enumerate((usage.frames, usage.plain, usage.stored)):
                sums[place] += value
    measured = gains(repository)
    found = []
    for name in {*classes, *sizes}:
        one = of_shipped.get(name)
        frames, plain_bytes, stored_bytes = used.get(name, (0, 0, 0))
        found.append(
            Known(
                name,
                sizes.get(name, one.size if one else 0),
                tuple(sorted(classes.get(name, ()))),
                tuple(sorted(key for key, value in repository.log.dictionaries.items() if value == name)),
                name in sizes,
                name in sizes and digest(repository.store.get("dictionaries", name.hex())) != name,
                frames,
                plain_bytes,
                stored_bytes,
                measured.get(name),
                one,
            )
        )
    return sorted(found, key=lambda one: (not one.adopted, not one.frames, not one.stored, one.classes, one.digest))
