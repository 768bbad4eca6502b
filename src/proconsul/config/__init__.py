"""Configuration: files and flags in Consul's vocabulary become one frozen `AgentConfig`.

`load.load_config` is the entry point; `model.AgentConfig` is what everybody else reads. Follows
Consul 1.8's `agent/config` (builder, defaults, merge rules).
"""
