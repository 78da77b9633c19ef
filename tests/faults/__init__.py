"""Faults: processes killed, calls that fail, disks that are full."""
