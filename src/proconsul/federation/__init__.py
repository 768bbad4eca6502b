"""WAN federation through mesh gateways: finding gateways, travelling through them, sharing them.

The locator decides, the dialer and the WAN transport travel, replication, anti-entropy and pruning
keep the federation states true, and status explains which hop fails.
"""
