"""Tests of what is stored: pure modules, hostile bytes, golden files."""
