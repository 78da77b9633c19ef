"""Tests of catalog, log, repository and writer."""
