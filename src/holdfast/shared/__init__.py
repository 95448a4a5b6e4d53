"""Memory that the processes of one data directory share: what each must know of the others at every call, without I/O."""
