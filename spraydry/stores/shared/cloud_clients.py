"""Clients of object stores, with keys and endpoints from the environment and each tool's usual files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as ConfigError
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from spraydry.errors import UsageError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

# Where the keys of each scheme come from, for messages.
KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE and ~/.aws/credentials",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
# A call ends within some 90 s: a request is not sent again when the first has taken 30 s, and none takes more than 60,
# in which a frame of 1 MiB goes through 150 kbit/s.
_TIMES: ClientConfig = {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=60)}
_RETRY: RetryConfig = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
# Ways to keys that need another program or service.
_ELSEWHERE = ("sso_session", "sso_start_url", "role_arn", "credential_process")


def client(scheme: str, bucket: str) -> Any:
    """The library's client for a bucket: it does not connect yet. Threads may share it, a fork ends it."""
    from obstore.store import AzureStore, GCSStore, S3Store

    if scheme == "gs":
        return GCSStore(bucket, client_options=_TIMES, retry_config=_RETRY)
    if scheme == "az":
        return AzureStore(bucket, client_options=_TIMES, retry_config=_RETRY)
    config = aws_settings(os.environ)
    endpoint = config.get("endpoint") or next(filter(None, map(os.environ.get, _ENDPOINTS)), "https://")
    if not re.match("https?://", endpoint):
        raise UsageError("AWS_ENDPOINT_URL must begin with https:// or http://")
    options: ClientConfig = {**_TIMES, "allow_http": endpoint.startswith("http://")}  # whoever wrote http: means it
    return S3Store(bucket, config=config, client_options=options, retry_config=_RETRY)


def aws_settings(environment: Mapping[str, str]) -> S3Config:
    """What AWS's files say under AWS_PROFILE (or `default`) of keys, region and endpoint, where the environment does
    not say it itself. Raises UsageError for a profile that is not there or needs other tools."""
    named = environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE")
    profile = named or "default"
    keys_path = os.path.expanduser(environment.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials")
    config_path = os.path.expanduser(environment.get("AWS_CONFIG_FILE") or "~/.aws/config")
    keys = _section(keys_path, profile)
    more = _section(config_path, profile if profile == "default" else f"profile {profile}")
    if named and keys is None and more is None:
        raise UsageError(f"AWS_PROFILE is {named!r}, but neither {keys_path} nor {config_path} has that profile")
    found = {**(more or {}), **(keys or {})}
    settings: S3Config = {}
    if not environment.get("AWS_ACCESS_KEY_ID"):
        if found.get("aws_access_key_id") and found.get("aws_secret_access_key"):
            settings["access_key_id"] = found["aws_access_key_id"]
            settings["secret_access_key"] = found["aws_secret_access_key"]
            if found.get("aws_session_token"):
                settings["session_token"] = found["aws_session_token"]
        elif named and any(way in found for way in _ELSEWHERE):
            raise UsageError(
                f"the AWS profile {named!r} holds no keys of its own: put them into the environment with "
                f"`eval $(aws configure export-credentials --profile {named} --format env)`"
            )
    if found.get("region") and not any(map(environment.get, _REGIONS)):
        settings["region"] = found["region"]
    if found.get("endpoint_url") and not any(map(environment.get, _ENDPOINTS)):
        settings["endpoint"] = found["endpoint_url"]
    return settings


def _section(path: str, name: str) -> dict[str, str] | None:
    parser = ConfigParser(interpolation=None, strict=False, default_section="\0")
    try:
        parser.read(path, encoding="utf-8")
    except (ConfigError, UnicodeDecodeError):  # whose text may quote a key
        raise UsageError(f"{path} cannot be read: it should have lines like `[default]` and `region = NAME`") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    return dict(parser[name]) if name in parser else None
