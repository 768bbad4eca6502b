"""Raft in a simulated world: virtual time, faulty network, disks and clocks, clients, invariants.

One seed decides everything; `world.run_seed` is the entrance. Modules: `clock` (time), `disk`,
`network`, `server` (one machine with its disk and state machine), `client`, `faults` (what goes
wrong when), `invariants` (what must never happen), `world` (all of it together).
"""
