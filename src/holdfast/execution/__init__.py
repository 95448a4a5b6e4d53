"""Where policies meet time and I/O: reservations over the ledger, attempts over upstreams. Everything outside comes in as an interface."""
