"""The entry point: finds the command, imports its module alone, and maps the outcome to a status.

Statuses as the reference's: 0 done or help asked for, 1 failed, 127 no such command. The name it
is started under (`proconsul`, or `consul` through a link) makes no difference.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from proconsul.interfaces.cli.command import Command, CommandError, err, out

_CLI = "proconsul.interfaces.cli"

COMMANDS: dict[str, tuple[str, str]] = {
    "acl auth-method list": (f"{_CLI}.acl_misc:METHODS", "Lists ACL auth methods"),
    "acl auth-method read": (f"{_CLI}.acl_misc:METHOD", "Read an ACL auth method"),
    "acl binding-rule list": (f"{_CLI}.acl_misc:RULES", "Lists ACL binding rules"),
    "acl binding-rule read": (f"{_CLI}.acl_misc:RULE", "Read an ACL binding rule"),
    "acl bootstrap": (f"{_CLI}.acl_token:BOOTSTRAP", "Bootstrap Consul's ACL system"),
    "acl policy create": (f"{_CLI}.acl_policy:CREATE", "Create an ACL policy"),
    "acl policy delete": (f"{_CLI}.acl_policy:DELETE", "Delete an ACL policy"),
    "acl policy list": (f"{_CLI}.acl_policy:LIST", "Lists ACL policies"),
    "acl policy read": (f"{_CLI}.acl_policy:READ", "Read an ACL policy"),
    "acl policy update": (f"{_CLI}.acl_policy:UPDATE", "Update an ACL policy"),
    "acl role create": (f"{_CLI}.acl_role:CREATE", "Create an ACL role"),
    "acl role delete": (f"{_CLI}.acl_role:DELETE", "Delete an ACL role"),
    "acl role list": (f"{_CLI}.acl_role:LIST", "Lists ACL roles"),
    "acl role read": (f"{_CLI}.acl_role:READ", "Read an ACL role"),
    "acl role update": (f"{_CLI}.acl_role:UPDATE", "Update an ACL role"),
    "acl set-agent-token": (
        f"{_CLI}.acl_misc:SET_AGENT_TOKEN",
        "Assign tokens for the Consul Agent's usage",
    ),
    "acl token clone": (f"{_CLI}.acl_token:CLONE", "Clone an ACL token"),
    "acl token create": (f"{_CLI}.acl_token:CREATE", "Create an ACL token"),
    "acl token delete": (f"{_CLI}.acl_token:DELETE", "Delete an ACL token"),
    "acl token list": (f"{_CLI}.acl_token:LIST", "List ACL tokens"),
    "acl token read": (f"{_CLI}.acl_token:READ", "Read an ACL token"),
    "acl token update": (f"{_CLI}.acl_token:UPDATE", "Update an ACL token"),
    "acl translate-rules": (
        f"{_CLI}.acl_misc:TRANSLATE",
        "Translate the legacy rule syntax into the current syntax",
    ),
    "agent": (f"{_CLI}.agent:COMMAND", "Runs an agent"),
    "catalog datacenters": (f"{_CLI}.catalog:DATACENTERS", "Lists all known datacenters"),
    "catalog nodes": (f"{_CLI}.catalog:NODES", "Lists all nodes in the given datacenter"),
    "catalog services": (
        f"{_CLI}.catalog:SERVICES",
        "Lists all registered services in a datacenter",
    ),
    "connect ca get-config": (
        f"{_CLI}.connect_ca:GET",
        "Display the current Connect Certificate Authority (CA) configuration",
    ),
    "connect ca set-config": (
        f"{_CLI}.connect_ca:SET",
        "Modify the current Connect CA configuration",
    ),
    "connect envoy": (f"{_CLI}.connect_envoy:run", "Runs or configures Envoy"),
    "debug": (f"{_CLI}.debug:DEBUG", "Records a debugging archive for operators"),
    "dev": ("proconsul.app.dev:run", "Runs a world of federated datacenters on this machine"),
    "exec": (f"{_CLI}.exec:EXEC", "Executes a command on Consul nodes"),
    "federation status": (
        f"{_CLI}.federation_status:run",
        "Shows the way to each datacenter, or where it fails",
    ),
    "event": (f"{_CLI}.event:EVENT", "Fire a new event"),
    "force-leave": (
        f"{_CLI}.membership:FORCE_LEAVE",
        'Forces a member of the cluster to enter the "left" state',
    ),
    "info": (f"{_CLI}.info:COMMAND", "Provides debugging information for operators."),
    "join": (f"{_CLI}.membership:JOIN", "Tell an agent to join a cluster"),
    "keygen": (f"{_CLI}.keygen:COMMAND", "Generates a new encryption key"),
    "keyring": (f"{_CLI}.keyring:KEYRING", "Manages gossip layer encryption keys"),
    "config delete": (f"{_CLI}.config:DELETE", "Deletes a config entry"),
    "config list": (f"{_CLI}.config:LIST", "Lists the config entries of a kind"),
    "config read": (f"{_CLI}.config:READ", "Shows a config entry"),
    "config write": (f"{_CLI}.config:WRITE", "Creates or updates a config entry"),
    "intention check": (f"{_CLI}.intention:CHECK", "Says whether a connection is allowed"),
    "intention create": (f"{_CLI}.intention:CREATE", "Creates intentions for connections"),
    "intention delete": (f"{_CLI}.intention:DELETE", "Deletes an intention"),
    "intention get": (f"{_CLI}.intention:GET", "Shows an intention"),
    "intention match": (f"{_CLI}.intention:MATCH", "Lists the intentions of a service"),
    "kv delete": (f"{_CLI}.kv:DELETE", "Removes data from the KV store"),
    "kv export": (f"{_CLI}.kv_transfer:EXPORT", "Exports a tree from the KV store as JSON"),
    "kv get": (f"{_CLI}.kv:GET", "Retrieves or lists data from the KV store"),
    "kv import": (f"{_CLI}.kv_transfer:IMPORT", "Imports a tree stored as JSON to the KV store"),
    "kv put": (f"{_CLI}.kv:PUT", "Sets or updates data in the KV store"),
    "leave": (f"{_CLI}.membership:LEAVE", "Gracefully leaves the cluster and shuts down"),
    "lock": (f"{_CLI}.lock:LOCK", "Execute a command holding a lock"),
    "maint": (f"{_CLI}.maint:MAINT", "Controls node or service maintenance mode"),
    "members": (f"{_CLI}.members:COMMAND", "Lists the members of a cluster"),
    "monitor": (f"{_CLI}.monitor:MONITOR", "Stream logs from a Consul agent"),
    "operator autopilot get-config": (
        f"{_CLI}.operator:GET_CONFIG",
        "Display the current Autopilot configuration",
    ),
    "operator autopilot set-config": (
        f"{_CLI}.operator:SET_CONFIG",
        "Modify the current Autopilot configuration",
    ),
    "operator raft list-peers": (
        f"{_CLI}.operator:LIST_PEERS",
        "Display the current Raft peer configuration",
    ),
    "operator raft remove-peer": (
        f"{_CLI}.operator:REMOVE_PEER",
        "Remove a Consul server from the Raft configuration",
    ),
    "reload": (
        f"{_CLI}.membership:RELOAD",
        "Triggers the agent to reload configuration files",
    ),
    "rtt": (f"{_CLI}.rtt:RTT", "Estimates network round trip time between nodes"),
    "services deregister": (
        f"{_CLI}.services:DEREGISTER",
        "Deregister services with the local agent",
    ),
    "services register": (f"{_CLI}.services:REGISTER", "Register services with the local agent"),
    "snapshot inspect": (
        f"{_CLI}.snapshot:INSPECT",
        "Displays information about a Consul snapshot file",
    ),
    "snapshot restore": (
        f"{_CLI}.snapshot:RESTORE",
        "Restores snapshot of Consul server state",
    ),
    "snapshot save": (f"{_CLI}.snapshot:SAVE", "Saves snapshot of Consul server state"),
    "tls ca create": (f"{_CLI}.tls:CA_CREATE", "Create a new CA"),
    "tls cert create": (f"{_CLI}.tls:CERT_CREATE", "Create a new certificate"),
    "validate": (f"{_CLI}.validate:COMMAND", "Validate config files/directories"),
    "watch": (f"{_CLI}.watch:WATCH", "Watch for changes in Consul"),
    "version": (f"{_CLI}.version:COMMAND", "Prints the version"),
}
"""Command -> (where it is, in one line what it does)."""

GROUPS: dict[str, str] = {
    "acl": "Interact with Consul's ACLs",
    "acl auth-method": "Look at ACL auth methods",
    "acl binding-rule": "Look at ACL binding rules",
    "acl policy": "Manage Consul's ACL policies",
    "acl role": "Manage Consul's ACL roles",
    "acl token": "Manage Consul's ACL tokens",
    "catalog": "Interact with the catalog",
    "config": "Interact with centralized configuration",
    "intention": "Interact with the intentions of the service mesh",
    "connect": "Interact with the service mesh",
    "connect ca": "Interact with the certificate authority of the service mesh",
    "federation": "Look at the federation of datacenters",
    "kv": "Interact with the key-value store",
    "operator": "Provides cluster-level tools for Consul operators",
    "operator autopilot": "Provides tools for modifying Autopilot configuration",
    "operator raft": "Provides cluster-level tools for Consul operators",
    "services": "Interact with services",
    "snapshot": "Saves, restores and inspects snapshots of Consul server state",
    "tls": "Builtin helpers for creating CAs and certificates",
    "tls ca": "Helpers for CAs",
    "tls cert": "Helpers for certificates",
}
"""Words that only lead to commands."""

_HELP = frozenset({"-h", "-help", "--help"})
_VERSION = frozenset({"-v", "-version", "--version"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader went away (`| head`): nothing is left to say, nor anyone to say it to
        sys.stderr.close()
        return 1


def _dispatch(args: list[str]) -> int:
    if args and args[0] in _VERSION:
        return _run("version", [])
    if not args or args[0] in _HELP:
        (out if args else err)(_overview(""))
        return 0 if args else 127
    for words in (3, 2, 1):
        name = " ".join(args[:words])
        if len(args) >= words and name in COMMANDS:
            return _run(name, args[words:])
        if len(args) >= words and name in GROUPS:
            asked = any(a in _HELP for a in args[words:])
            if not asked and len(args) > words:
                err(f"Unknown subcommand of {name}: {args[words]}\n")
            (out if asked else err)(_overview(name))
            return 0 if asked else 1
    err(f"Unknown command: {args[0]}\n\n{_overview('')}")
    return 127


def _run(name: str, args: list[str]) -> int:
    module_name, _, attribute = COMMANDS[name][0].partition(":")
    target = getattr(import_module(module_name), attribute)
    if not isinstance(target, Command):
        return int(target(args))
    from proconsul.config.goflags import FlagError, parse

    if any(a in _HELP for a in _before_terminator(args)):
        out(target.help())
        return 0
    try:
        parsed = parse(target.flags, args)
    except FlagError as error:
        err(f"{error}\n{target.help()}")
        return 1
    try:
        return target.run(parsed)
    except CommandError as error:
        err(str(error))
        return 1


def _before_terminator(args: list[str]) -> list[str]:
    return args[: args.index("--")] if "--" in args else args


def _overview(group: str) -> str:
    prefix = group + " " if group else ""
    depth = len(prefix.split())
    entries = {**GROUPS, **{name: text for name, (_, text) in COMMANDS.items()}}
    rows = {
        name.split()[depth]: text
        for name, text in sorted(entries.items())
        if name.startswith(prefix) and len(name.split()) == depth + 1
    }
    width = max(map(len, rows))
    lines = [f"    {name.ljust(width)}    {text}" for name, text in rows.items()]
    if group:
        head = f"Usage: proconsul {group} <subcommand> [options] [args]\n\nSubcommands:"
    else:
        head = "Usage: proconsul [--version] [--help] <command> [<args>]\n\nAvailable commands are:"
    return "\n".join([head, *lines, ""])


if __name__ == "__main__":
    sys.exit(main())
