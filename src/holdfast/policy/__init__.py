"""Decisions as values: limits, retries, identity. Pure: time, randomness and I/O are the callers'."""
