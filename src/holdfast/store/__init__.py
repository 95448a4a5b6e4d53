"""The journal: one append-only NDJSON file per writer process, and the reader over all of them."""
