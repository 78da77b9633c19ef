"""Repositories: a store, the catalog that indexes it, and the log that says what was committed."""
