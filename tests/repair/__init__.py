"""Tests of what is lost and had again, or told."""
