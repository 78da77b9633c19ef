"""TLS: a certificate and its key, for HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import ssl
from pathlib import Path

from spraydry.errors import SprayDryError


def context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What connections are secured with. Raises SprayDryError where the files are not a certificate and its key."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    made.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    made.set_alpn_protocols(["h2", "http/1.1"])
    for path in (certificate, key):
        try:
            path.read_bytes()
        except OSError as error:
            raise SprayDryError(f"cannot read {path}: {error.strerror}") from None
    try:
        made.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        why = {"KEY_VALUES_MISMATCH": "the key is that of another certificate"}.get(
            getattr(error, "reason", None) or ""
        )
        raise SprayDryError(
            f"{certificate} and {key} are no certificate and its key (both PEM): {why or 'they cannot be read as that'}"
        ) from None
    return made


def _no_password() -> str:
    raise ValueError("the key needs a password")
