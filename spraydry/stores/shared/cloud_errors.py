"""What an error of the object store library means, in one line."""

from __future__ import annotations

import re

from spraydry.errors import StoreError, StoreFull, StoreNotFound, StoreReadOnly, StoreUnavailable, UsageError
from spraydry.stores.shared.cloud_clients import KEYS

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,80})</Code>|\"(?:code|reason)\": ?\"(\w{1,80})\"")
_HOST = re.compile(r"Error performing [A-Z]+ (https?://[^/?\s]+)")
_MAKE = {
    "s3": "aws s3 mb s3://{}",
    "gs": "gcloud storage buckets create gs://{}",
    "az": "az storage container create -n {}",
}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}
_WRONG_KEYS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "AuthenticationFailed",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "RequestTimeTooSkewed",
}
_FULL = {"QuotaExceeded", "InsufficientCapacity", "XMinioStorageFull", "AccountIsFull"}
_ON_ITS_WAY = {"XAmzContentSHA256Mismatch", "BadDigest", "Md5Mismatch", "IncompleteBody", "RequestTimeout"}
_ELSEWHERE = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}


def is_missing(error: Exception) -> bool:
    """Whether it says that there is no such value (but a bucket)."""
    return isinstance(error, FileNotFoundError) and _code(str(error)) not in _NO_BUCKET


def is_range_beyond(error: Exception) -> bool:
    """Whether it says that a value ends before the range that was asked for."""
    return _status(str(error)) == 416


def failure(error: Exception, place: str, scheme: str, bucket: str) -> StoreError | UsageError:
    """The error to raise; `place` is the store's URL."""
    text = str(error)
    status, code = _status(text), _code(text)
    host = found[1] if (found := _HOST.search(text)) else "the server"
    if code in _NO_BUCKET:
        make = _MAKE[scheme].format(bucket)
        return StoreNotFound(f"there is no bucket {bucket} at {host}: make it first, for example with `{make}`")
    if "//169.254.169.254/" in text or "token request" in text or "MissingAccount" in text:
        return StoreError(f"no keys were found for {place}: set {KEYS[scheme]}")
    if code in _ELSEWHERE or status in (301, 307) or "redirect without LOCATION" in text:
        return StoreError(f"{place} lies in another region than was asked: set AWS_REGION to the bucket's")
    if code in _WRONG_KEYS or status == 401:
        return StoreError(f"{host} does not accept the keys for {place} ({code or status}): check {KEYS[scheme]}")
    if code in _FULL or status == 507:
        return StoreFull(f"{place} takes no more: {code or 'no room is left'}")
    if status == 403:
        if re.search(r"Error performing (PUT|POST|DELETE)", text):
            return StoreReadOnly(f"{place} must not be written with these keys ({code or 'forbidden'})")
        return StoreError(f"{host} does not let these keys read {place} ({code or 'forbidden'}): check {KEYS[scheme]}")
    if status in (408, 429) or (status and status >= 500 and status != 501) or code == "SlowDown":
        return StoreUnavailable(f"{host} cannot answer at present ({status}{' ' + code if code else ''}); try again")
    if code in _ON_ITS_WAY:
        return StoreUnavailable(f"{host} did not get the bytes that were sent ({code}); try again")
    if status is None and (why := _of_connection(text)):
        return StoreUnavailable(f"{host} {why}")
    said = f"{status} {code or ''}".strip() if status else text.split("\n", 1)[0][:300]
    return StoreError(f"{place}: {host} answers with an error ({said})")


def _of_connection(text: str) -> str | None:
    if "dns error" in text:
        return "is not known by that name: check the endpoint and the network"
    if "kind: Connect" in text:
        return "cannot be reached: check the endpoint and the network"
    if "kind: Timeout" in text:
        return "does not answer; try again"
    return "broke off the connection; try again" if "HttpError" in text or "HTTP error" in text else None


def _status(text: str) -> int | None:
    found = _STATUS.search(text)
    return int(found[1]) if found else None


def _code(text: str) -> str | None:
    found = _CODE.search(text)
    return found[1] or found[2] if found else None
