"""`/v1/hoards/`: single files under keys, for spraydry and other programs; `/hoards/` gives them to browsers."""

from __future__ import annotations

from starlette.routing import BaseRoute

from spraydry.web.hoards.described import described
from spraydry.web.hoards.keys import OneKey
from spraydry.web.hoards.lists import Lists
from spraydry.web.hoards.part import Part
from spraydry.web.hoards.transactions import Transactions
from spraydry.web.resource import Resource
from spraydry.web.served import Served

__all__ = ["described", "routes"]


def routes(served: Served) -> list[BaseRoute]:
    """The paths of one repository's hoards."""
    part = Part(served)
    transactions = Transactions(part)
    one, lists = OneKey(part, transactions), Lists(part, transactions)
    hoard = "/v1/hoards/{hoard}"
    begun = hoard + "/transactions/{transaction}"
    return [
        Resource("/v1/hoards", GET=lists.hoards),
        Resource(hoard, GET=lists.count),
        Resource(hoard + "/keys", GET=lists.keys),
        Resource(hoard + "/keys/{key:path}", GET=one.get, PUT=one.put, DELETE=one.delete),
        Resource(hoard + "/spans/{key:path}", GET=one.spans),
        Resource(hoard + "/history/{key:path}", GET=lists.history),
        Resource(hoard + "/undelete/{key:path}", POST=lists.undelete),
        Resource(hoard + "/url/{key:path}", POST=lists.url),
        Resource(hoard + "/has", POST=lists.has),
        Resource(hoard + "/batch", POST=lists.batch),
        Resource(hoard + "/transactions", POST=transactions.begin),
        Resource(begun + "/prepare", POST=transactions.prepare),
        Resource(begun + "/commit", POST=transactions.commit),
        Resource(begun + "/abort", POST=transactions.abort),
        Resource("/v1/files", PUT=one.put_unnamed),
        Resource("/v1/files/{key}", GET=one.get),
        Resource("/hoards/{hoard}/{key:path}", GET=one.get),
    ]
