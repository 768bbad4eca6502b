"""The only row with sockets, TLS, files, LMDB, clocks and threads."""
