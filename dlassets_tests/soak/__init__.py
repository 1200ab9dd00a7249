"""Ingestion under random file operations and faults, compared with a plain model of what the tables must hold.

`test_soak.py` runs a little of it each time, and `make soak` (`python -m dlassets_tests.soak`) as much as is asked for.
"""
