"""Append-only segment files with an index beside each, and what is built on them. Layout: FORMAT.md."""
