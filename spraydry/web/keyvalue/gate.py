"""The store of a served repository as clients may use it: nothing is shown that is not theirs, nothing gets in that was
not verified."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from spraydry.errors import (
    CorruptData,
    StoreReadOnly,
    TooLarge,
    UploadRefused,
    ValueNotFound,
)
from spraydry.format.digest import digest
from spraydry.parallel import ordered_map
from spraydry.repository.repository import Repository
from spraydry.stores.base import Stat
from spraydry.web.grant import Grant
from spraydry.web.keyvalue.frames import Decoded
from spraydry.web.keyvalue.leases import check_lease, is_lease
from spraydry.web.keyvalue.packs import check_pack
from spraydry.web.keyvalue.records import Records
from spraydry.web.keyvalue.runs import check_run
from spraydry.web.keyvalue.shown import BY_DIGEST, MOST_BYTES, check_name, check_namespace, is_digest, is_shown

Values = Sequence[tuple[str, bytes]]


class Gate:
    """What handlers ask instead of the store. Blocks; threads may share it. What is asked for by name must have passed
    `shown.check_name`. Raises Refused where the grant does not give the right."""

    def __init__(self, repository: Repository, read_only: bool) -> None:
        self.repository = repository
        self.store = repository.store
        self.read_only = read_only
        self.records = Records(repository)
        self._decoded = Decoded(repository)

    # -- reading

    def get(self, grant: Grant, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        """A value, or a part of it, as of `Store.get`. A whole one whose name is a digest was compared with it. Raises
        ValueNotFound, CorruptData."""
        self._readable(grant, namespace, name)
        value = self.store.get(namespace, name, start, length)
        if start == 0 and length is None:
            self._sound(namespace, name, value)
        return value

    def get_many(self, grant: Grant, namespace: str, names: Sequence[str]) -> list[tuple[str, bytes | None]]:
        """As `get`, of several values; None for what is not there."""
        grant.require("read", namespace=namespace)
        shown = [name for name in names if is_shown(namespace, name)]
        found = iter(self.store.get_many(namespace, shown))
        values: list[tuple[str, bytes | None]] = []
        for name in names:
            value = next(found)[1] if is_shown(namespace, name) else None
            if value is not None:
                self._sound(namespace, name, value)
            values.append((name, value))
        return values

    def size(self, grant: Grant, namespace: str, name: str) -> int:
        """How long a value is. Raises ValueNotFound."""
        self._readable(grant, namespace, name)
        found = self.store.info(namespace, name)
        if found is None:
            raise ValueNotFound(f"{namespace}/{name} is not here")
        return found.size

    def sizes(self, grant: Grant, namespace: str, names: Sequence[str]) -> tuple[int | None, ...]:
        """How long values are; None for what is not there."""
        grant.require("read", namespace=namespace)

        def size(name: str) -> int | None:
            found = self.store.info(namespace, name) if is_shown(namespace, name) else None
            return None if found is None else found.size

        concurrency = self.store.traits.concurrency
        return tuple(ordered_map(size, names, concurrency) if concurrency > 1 else map(size, names))

    def page(
        self, grant: Grant, namespace: str, after: str, limit: int, deleted: bool
    ) -> tuple[list[tuple[str, int]], bool]:
        """The names behind `after` with their sizes, at most `limit`, and whether there are more; of what was deleted
        softly if `deleted`. Raises NotListed."""
        grant.require("list", namespace=namespace)
        check_namespace(namespace)
        listed = self.store.list(namespace + "~" * deleted, after)
        if namespace == "config":
            listed = (stored for stored in listed if is_shown(namespace, stored.name))
        elif namespace == "leases" and not grant.allows("delete", namespace=namespace):
            # Who knows a lease may end it: those of others are not told.
            if deleted or not is_lease(after):
                return [], False
            listed = (stored for stored in listed if stored.name.startswith(after + "."))
        found = [(stored.name, stored.size) for stored in islice(listed, limit + 1)]
        if isinstance(listed, type(_ for _ in ())):
            listed.close()
        return found[:limit], len(found) > limit

    def fill(self, grant: Grant) -> Stat:
        """How much the store holds; may read a listing of everything."""
        grant.require("list", namespace="frames")
        return self.store.stat()

    def _readable(self, grant: Grant, namespace: str, name: str) -> None:
        if namespace != "config":  # its ids are in the greeting, too
            grant.require("read", namespace=namespace)
        if not is_shown(namespace, name):
            raise ValueNotFound(f"{namespace}/{name} is not here")

    @staticmethod
    def _sound(namespace: str, name: str, value: bytes) -> None:
        if namespace in BY_DIGEST and is_digest(name) and digest(value).hex() != name:
            raise CorruptData(f"{namespace}/{name} is damaged in the store behind this server")

    # -- writing

    def put(self, grant: Grant, namespace: str, values: Values) -> None:
        """Store values; all of them were verified before the first is stored. What is there already by the name of its
        digest is the same. Raises UploadRefused, StoreErrors."""
        self.admit(grant, namespace)
        self._check(namespace, values)
        if namespace == "log":
            raise UploadRefused("slots of the log are created one by one (PUT with If-None-Match: *), never replaced")
        if namespace == "frames":
            decoded = [self._decoded.checked(name, value) for name, value in values]
            self.store.put_many(namespace, values)
            for info, chunks in decoded:
                self._decoded.remember(info, chunks)
        elif namespace == "index":
            for name, value in values:
                infos, rows = check_run(self.repository, self._decoded, name, value)
                with self.repository.batch():
                    self.store.put(namespace, name, value)
                    self.repository.take_decoded(name, infos, rows)
        else:
            for name, value in values:
                if namespace == "dictionaries":
                    self._decoded.check_dictionary(name, value)
                elif namespace == "hoards":
                    check_pack(self.repository.log, name, value)
                else:
                    check_lease(self.repository, name, value)
            self.store.put_many(namespace, values)

    def create(self, grant: Grant, namespace: str, name: str, value: bytes) -> bool:
        """Store a value unless the name is taken; False if it is. Raises as `put`, and what `Records.append` does."""
        self.admit(grant, namespace)
        self._check(namespace, [(name, value)])
        if namespace == "log":
            return self.records.append(name, value, grant)
        if self.store.info(namespace, name) is not None:
            return False
        if namespace == "leases":
            check_lease(self.repository, name, value)
            return self.store.create(namespace, name, value)
        self.put(grant, namespace, [(name, value)])
        return True

    def delete(self, grant: Grant, namespace: str, names: Sequence[str], how: str) -> list[str]:
        """`delete`, `soft-delete`, `undelete` or `purge` values, as the methods of a Store do; the names an undelete
        brought back. Raises UploadRefused for what nobody deletes here."""
        self.check_writable(namespace)
        if namespace == "leases" and how == "delete" and not grant.allows("delete", namespace=namespace):
            grant.require("add", namespace=namespace)
        else:
            grant.require("delete", namespace=namespace)
        if namespace in ("log", "hoards"):
            raise UploadRefused(f"nothing is deleted from {namespace}: what takes something back is a record")
        if how == "undelete":
            return self._undelete(namespace, names)
        if how != "purge" and namespace in ("frames", "dictionaries"):
            self._check_given_up(namespace, names)
        if how == "delete":
            self.store.delete(namespace, names)
        elif how == "soft-delete":
            self.store.soft_delete(namespace, names)
        else:
            self.store.purge(namespace, names)
        return []

    def _undelete(self, namespace: str, names: Sequence[str]) -> list[str]:
        if namespace == "leases":
            raise UploadRefused("leases are not brought back")
        return self.store.undelete(namespace, names)

    def _check_given_up(self, namespace: str, names: Sequence[str]) -> None:
        """Raises UploadRefused for frames and dictionaries that the log has not given up for good, unless they are
        damaged."""
        self.repository.log.read()
        log = self.repository.log
        if namespace == "frames":
            gone = {name for _, made, collected in log.sentences() if collected for name in made.frames}
        else:
            gone = {name for _, made, collected in log.drops() if collected for name in made.dictionaries}
        for name in names:
            if is_digest(name) and bytes.fromhex(name) not in gone and self._is_sound(namespace, name):
                raise UploadRefused(
                    f"{namespace}/{name} was not deleted: only what a record in the log has condemned and collected is"
                )

    def _is_sound(self, namespace: str, name: str) -> bool:
        try:
            return digest(self.store.get(namespace, name)).hex() == name
        except ValueNotFound:
            return False

    def admit(self, grant: Grant, namespace: str) -> None:
        """Raises what `put` and `create` would for any value of that namespace, before one is read. Never blocks."""
        self.check_writable(namespace)
        if namespace not in MOST_BYTES:
            raise UploadRefused(f"this server takes nothing for {namespace}")
        if namespace == "hoards":  # a copy of slots
            grant.require("add", namespace="log")
        elif namespace != "log":  # there it depends on the record
            grant.require("add", namespace=namespace)

    def check_writable(self, namespace: str) -> None:
        """Raises StoreReadOnly where nothing is taken."""
        check_namespace(namespace)
        if namespace == "config":
            raise UploadRefused("this server takes nothing for config: where its stores are is told to it alone")
        if self.read_only:
            raise StoreReadOnly("this server takes no uploads: it is read-only")

    @staticmethod
    def _check(namespace: str, values: Values) -> None:
        for name, value in values:
            check_name(namespace, name)
            if len(value) > MOST_BYTES[namespace]:
                raise TooLarge(f"{namespace}/{name} has {len(value):,} bytes: at most {MOST_BYTES[namespace]:,}")
            if namespace in BY_DIGEST and not is_digest(name):
                raise UploadRefused(f"{namespace}/{name[:80]} was not stored: its name is no digest")
