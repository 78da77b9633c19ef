"""How many copies the files of a hoard get: as its frames' class has, where the stores have a number for that."""

from __future__ import annotations

from spraydry.format.digest import Buffer
from spraydry.repository.repository import Repository
from spraydry.repository.writer import Writer


def class_of_hoard(repository: Repository, hoard: str) -> str | None:
    """The class of a hoard's frames, `hoard-NAME`, where that has a number of copies of its own; otherwise its files go
    by their endings, as all do."""
    spread, frame_class = repository.opened.spread, f"hoard-{hoard}"
    return frame_class if spread is not None and frame_class in spread.copies.by_class else None


class Copied:
    """Takes chunks for frames of one class. What lies only in frames with fewer copies is stored again."""

    def __init__(self, writer: Writer, frame_class: str) -> None:
        self._writer = writer
        self._class = frame_class

    def add(self, name: bytes, plain: Buffer, frame_class: str, *, part: bool = False) -> None:
        """As Writer.add, whatever the class would be otherwise."""
        repository = self._writer.repository
        assert repository.opened.spread is not None
        copies = repository.opened.spread.copies
        held = (repository.catalog.frame(place.frame) for place in repository.catalog.chunks.locate(name))
        enough = any(
            copies.of_class(frame.frame_class) >= copies.of_class(self._class) for frame in held if frame is not None
        )
        self._writer.add(name, plain, self._class, None if enough else False, part)


def sink_of(writer: Writer, hoard: str) -> Writer | Copied:
    """What takes the chunks of a hoard's files and pages, and gives them to a writer."""
    frame_class = class_of_hoard(writer.repository, hoard)
    return writer if frame_class is None else Copied(writer, frame_class)
