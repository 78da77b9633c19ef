"""Ingesting: file trees or a tar stream become a new version of a root."""

from spraydry.actions.ingest.ingest import Ingested, Progress, ingest

__all__ = ["Ingested", "Progress", "ingest"]
