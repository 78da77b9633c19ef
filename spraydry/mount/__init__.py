"""Mounting: versions as a read-only file system, served by a daemon. The only async code beside `web`."""
