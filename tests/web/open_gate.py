"""`spraydry serve` whose gate lets everything through: for what the wire and its client do to any value."""

from __future__ import annotations

from collections.abc import Sequence

from spraydry.cli import main
from spraydry.repository.repository import Repository
from spraydry.web.grant import Grant
from spraydry.web.keyvalue import shown
from spraydry.web.keyvalue.gate import Gate, Values
from spraydry.web.keyvalue.records import Records
from spraydry.web.served import Served


def put(gate: Gate, grant: Grant, namespace: str, values: Values) -> None:
    gate.store.put_many(namespace, values)


def create(gate: Gate, grant: Grant, namespace: str, name: str, value: bytes) -> bool:
    return gate.store.create(namespace, name, value)


def delete(gate: Gate, grant: Grant, namespace: str, names: Sequence[str], how: str) -> list[str]:
    if how == "undelete":
        return gate.store.undelete(namespace, names)
    {"delete": gate.store.delete, "soft-delete": gate.store.soft_delete, "purge": gate.store.purge}[how](
        namespace, names
    )
    return []


async def fresh(served: Served) -> Repository:
    """The log holds anything: it is not read."""
    return served.repository


if __name__ == "__main__":
    for attribute, let_through in (("put", put), ("create", create), ("delete", delete)):
        setattr(Gate, attribute, let_through)
    for namespace in ("frames", "index", "dictionaries", "log", "leases", "hoards", "config"):
        shown.MOST_BYTES[namespace] = 64 << 20
    setattr(Records, "tidy", lambda _: None)  # noqa: B010
    setattr(Served, "fresh", fresh)  # noqa: B010
    main()
