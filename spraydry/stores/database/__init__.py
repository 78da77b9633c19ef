"""SQLite files: connections to one, what it must hold, where it lies. Layout: FORMAT.md §8."""
