"""`/v1/hoards/`: single files under keys, for spraydry and other programs; `/hoards/` gives them to browsers."""

from __future__ import annotations

from starlette.routing import BaseRoute, Route

from spraydry.web.hoards.keys import OneKey
from spraydry.web.hoards.lists import Lists
from spraydry.web.hoards.part import Part
from spraydry.web.hoards.transactions import Transactions
from spraydry.web.served import Served


def routes(served: Served) -> list[BaseRoute]:
    """The paths of one repository's hoards."""
    part = Part(served)
    transactions = Transactions(part)
    one, lists = OneKey(part, transactions), Lists(part, transactions)
    hoard = "/v1/hoards/{hoard}"
    begun = hoard + "/transactions/{transaction}"
    return [
        Route("/v1/hoards", lists.hoards),
        Route(hoard, lists.count),
        Route(hoard + "/keys", lists.keys),
        Route(hoard + "/keys/{key:path}", one.get, methods=["GET"]),
        Route(hoard + "/keys/{key:path}", one.put, methods=["PUT"]),
        Route(hoard + "/keys/{key:path}", one.delete, methods=["DELETE"]),
        Route(hoard + "/history/{key:path}", lists.history),
        Route(hoard + "/url/{key:path}", lists.url, methods=["POST"]),
        Route(hoard + "/has", lists.has, methods=["POST"]),
        Route(hoard + "/batch", lists.batch, methods=["POST"]),
        Route(hoard + "/transactions", transactions.begin, methods=["POST"]),
        Route(begun + "/prepare", transactions.prepare, methods=["POST"]),
        Route(begun + "/commit", transactions.commit, methods=["POST"]),
        Route(begun + "/abort", transactions.abort, methods=["POST"]),
        Route("/v1/files", one.put_unnamed, methods=["PUT"]),
        Route("/v1/files/{key}", one.get),
        Route("/hoards/{hoard}/{key:path}", one.get),
    ]
