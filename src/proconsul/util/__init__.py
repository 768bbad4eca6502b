"""The lowest row: error root, clock and RNG protocols, names, small pure helpers."""
