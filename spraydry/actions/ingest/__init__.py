"""Ingesting: file trees or a tar stream become a new version of a root."""

from spraydry.actions.ingest.ingest import Ingested, ingest
from spraydry.actions.ingest.tarstream import ingest_tar

__all__ = ["Ingested", "ingest", "ingest_tar"]
