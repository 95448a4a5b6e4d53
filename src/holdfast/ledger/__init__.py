"""Ledgers: what each limit has left, kept outside the process. One file per storage."""
