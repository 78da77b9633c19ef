"""Small documents like those that applications keep: JSON, configuration, notes. The same ones for the same seed."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable

Random = random.Random


def _words(text: str) -> list[str]:
    return text.split()


WORDS = _words("""
    account active address agent alert alias amount api archive asset attempt audit author backend balance batch
    billing branch bucket build cache cancel capacity catalog channel checkout city client cluster code color
    command commit config connection consumer container context contract country coupon created credit currency
    customer data database date debug default delivery deploy description device disk domain driver duration
    edge email enabled endpoint engine entity entry error event expires export failed feature field file filter
    flag folder format gateway group handler hash header health history host image import index inbound ingress
    instance interval invoice item job key kind label language latency level limit link list locale location
    lock log login machine manager mapping master memory merge message method metric mobile mode model module
    monitor mount name namespace network node note notify number object offset option order origin outbound
    output owner package page parent partner password patch path payload payment peer pending phone pipeline
    plan platform policy pool port post prefix price priority private process product profile project protocol
    provider proxy public publish queue quota range rate record redirect refund region release remote replica
    report repository request resource response result retry revision role rollback route rule runtime sample
    schedule schema scope search secret segment sequence server service session shard shipment signature size
    slot snapshot source stack stage state status storage stream subnet subscriber summary suspend switch tag
    target task team template tenant terminal test thread ticket timeout token topic total trace tracking
    traffic transaction trigger type update upload uri usage user validate value vendor version volume warehouse
    webhook weight window worker workflow workspace zone
""")
FIRST_NAMES = _words("""
    Anna Ben Carla David Emma Felix Grace Hugo Ines Jonas Kira Liam Mara Noah Olga Paul Quinn Rosa Sven Tara Uwe
    Vera Will Yara Zoe
""")
LAST_NAMES = _words("""
    Adams Bauer Costa Dvorak Evans Fischer Garcia Hansen Ivanov Jensen Kim Lopez Mueller Novak Okafor Petrov
    Quist Rossi Schmidt Tanaka Usman Vogel Weber Xu Young Zhang
""")
CITIES = _words("""
    Berlin Paris London Madrid Lisbon Vienna Prague Oslo Helsinki Dublin Rome Milan Zurich Geneva Lyon
""")


def _hex(rng: Random, digits: int) -> str:
    return f"{rng.getrandbits(4 * digits):0{digits}x}"


def _uuid(rng: Random) -> str:
    text = _hex(rng, 32)
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _when(rng: Random) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(1700000000 + rng.randrange(31536000))) + "Z"


def _sentence(rng: Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words)).capitalize() + "."


def user(rng: Random) -> str:
    first, last = rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)
    document = {
        "id": _uuid(rng),
        "type": "user",
        "schema_version": "2.3",
        "created_at": _when(rng),
        "updated_at": _when(rng),
        "profile": {
            "first_name": first,
            "last_name": last,
            "email": f"{first}.{last}{rng.randrange(999)}@example.com".lower(),
            "phone": f"+49 30 {rng.randrange(10**7):07d}",
            "address": {
                "street": f"{rng.choice(WORDS).title()} Street {rng.randrange(200)}",
                "city": rng.choice(CITIES),
            },
        },
        "roles": rng.sample(["admin", "editor", "viewer", "billing", "support", "auditor"], rng.randrange(1, 4)),
        "preferences": {
            "theme": rng.choice(["dark", "light"]),
            "email": rng.random() < 0.5,
            "push": rng.random() < 0.5,
        },
        "status": rng.choice(["active", "suspended", "pending"]),
    }
    return json.dumps(document, indent=rng.choice([None, 2])) + "\n"


def event(rng: Random) -> str:
    metadata = {
        "name": f"{rng.choice(WORDS)}-{_hex(rng, 8)}.{_hex(rng, 5)}",
        "namespace": rng.choice(["default", "kube-system", "billing", "shop", "search"]),
        "uid": _uuid(rng),
        "resourceVersion": str(rng.randrange(10**8)),
        "labels": {"app": rng.choice(WORDS), "tier": rng.choice(["frontend", "backend", "cache"])},
    }
    conditions = [
        {
            "type": rng.choice(WORDS),
            "status": rng.choice(["True", "False", "Unknown"]),
            "lastProbeTime": _when(rng),
            "message": _sentence(rng, 8),
        }
        for _ in range(rng.randrange(1, 9))
    ]
    document = {
        "apiVersion": "events.example.com/v1",
        "kind": "Event",
        "metadata": metadata,
        "reason": rng.choice(["Scheduled", "Pulled", "Created", "Started", "Killing", "BackOff", "FailedMount"]),
        "message": _sentence(rng, rng.randrange(5, 30)),
        "firstTimestamp": _when(rng),
        "count": rng.randrange(1, 50),
        "conditions": conditions,
    }
    return json.dumps(document, indent=2) + "\n"


def order(rng: Random) -> str:
    items = [
        {
            "sku": f"SKU-{rng.randrange(40000):06d}",
            "title": " ".join(rng.choice(WORDS) for _ in range(3)),
            "qty": rng.randrange(1, 5),
            "unit_price": round(rng.random() * 200, 2),
            "discount": None,
        }
        for _ in range(rng.randrange(1, 12))
    ]
    document = {
        "order_id": rng.randrange(10**9),
        "customer": _uuid(rng),
        "currency": rng.choice(["EUR", "USD", "GBP"]),
        "placed_at": _when(rng),
        "items": items,
        "payment": {"provider": rng.choice(["card", "paypal", "sepa"]), "transaction": _hex(rng, 24)},
        "shipment": {"carrier": rng.choice(["dhl", "ups", "gls"]), "tracking": _hex(rng, 16)},
    }
    return json.dumps(document) + "\n"


def package(rng: Random) -> str:
    def version() -> str:
        return f"{rng.randrange(9)}.{rng.randrange(30)}.{rng.randrange(30)}"

    document = {
        "name": f"@{rng.choice(WORDS)}/{rng.choice(WORDS)}-{rng.choice(WORDS)}",
        "version": version(),
        "description": _sentence(rng, 12),
        "main": "dist/index.js",
        "license": rng.choice(["MIT", "ISC", "Apache-2.0"]),
        "scripts": {"build": "tsc -p .", "test": "jest --coverage", "lint": "eslint src --ext .ts"},
        "keywords": [rng.choice(WORDS) for _ in range(6)],
        "dependencies": {
            f"{rng.choice(WORDS)}-{rng.choice(WORDS)}": f"^{version()}" for _ in range(rng.randrange(1, 15))
        },
    }
    return json.dumps(document, indent=2) + "\n"


def settings(rng: Random) -> str:
    lines = []
    for _ in range(rng.randrange(1, 6)):
        lines.append(f"[{rng.choice(WORDS)}.{rng.choice(WORDS)}]")
        for _ in range(rng.randrange(2, 9)):
            value = rng.choice(["true", "false", str(rng.randrange(10000)), rng.choice(WORDS)])
            lines.append(f"{rng.choice(WORDS)}_{rng.choice(WORDS)} = {value}")
        lines.append("")
    return "\n".join(lines)


def note(rng: Random) -> str:
    paragraphs = [
        " ".join(_sentence(rng, rng.randrange(6, 16)) for _ in range(rng.randrange(1, 5)))
        for _ in range(rng.randrange(1, 6))
    ]
    return "\n\n".join([f"# {rng.choice(WORDS).title()} {rng.choice(WORDS)}", *paragraphs]) + "\n"


# How many of a hundred are of each kind, and the ending of their names.
KINDS: list[tuple[int, str, Callable[[Random], str]]] = [
    (30, "json", user),
    (20, "json", event),
    (20, "json", order),
    (15, "json", package),
    (10, "ini", settings),
    (5, "md", note),
]


def document(rng: Random) -> tuple[str, str, str]:
    """A kind, an ending and a text."""
    ((_, ending, make),) = rng.choices(KINDS, [share for share, _, _ in KINDS])
    return make.__name__, ending, make(rng)
