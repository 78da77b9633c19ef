"""Stores over other stores, written once for all backends; they nest."""
