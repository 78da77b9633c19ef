"""Hoards over real connections."""
