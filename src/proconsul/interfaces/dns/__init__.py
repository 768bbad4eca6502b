"""The DNS interface: questions become calls, answers become records (`agent/dns.go`)."""
