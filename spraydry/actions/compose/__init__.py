"""Versions made of versions: trees and their hardlinks put together, cut and taken apart, without touching contents."""
