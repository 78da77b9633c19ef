"""A content-addressed, deduplicating, versioned file system that one mounts read-only."""

__version__ = "0.1.0"
