"""`proconsul connect envoy`: register a gateway, write Envoy's bootstrap, become Envoy.

After the reference's command/connect/envoy. What it decides on binding is decided by trying to
bind, not by a list of interfaces, so that every address of 127.0.0.0/8 counts.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proconsul.config import sockaddr
from proconsul.config.goflags import Flag, FlagError, Parsed, bool_flag, parse, string_flag
from proconsul.interfaces.cli.client import ApiError, Client, settings_from
from proconsul.interfaces.cli.command import CLIENT_FLAGS, NAMESPACE_FLAGS, Command, CommandError
from proconsul.interfaces.cli.envoy_bootstrap import (
    ADMIN_ACCESS_LOG,
    AgentAddress,
    Bootstrap,
    exec_envoy,
    find_envoy,
)
from proconsul.util.errors import ProconsulError

GATEWAY_PORT = 443
GRPC_PORT = 8502
GATEWAY_KINDS = {"mesh": "mesh-gateway"}
HELP = """Usage: proconsul connect envoy [options] [-- envoy options]

  Writes the bootstrap configuration of an Envoy that is a gateway of this
  agent's datacenter, and then runs Envoy in place of this command, with the
  options after "--" (such as --concurrency 1) passed on to it.

  Registers a mesh gateway that carries the traffic between the servers of
  federated datacenters, and runs it:

    $ proconsul connect envoy -gateway=mesh -register -expose-servers \\
        -address 10.0.0.5:8443 -wan-address 192.0.2.5:8443

  Prints the bootstrap of a gateway that is registered already:

    $ proconsul connect envoy -gateway=mesh -bootstrap
"""


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    host: str = ""
    port: int = GATEWAY_PORT

    def as_json(self) -> Mapping[str, Any]:
        return {"Address": self.host, "Port": self.port}


def parse_address(text: str) -> ServiceAddress:
    """`ip:port`, `[v6]:port`, an IP address (port 443), `:port`, or a go-sockaddr template of one.

    Raises ValueError with the reference's text.
    """
    expanded = sockaddr.expand(text)
    try:
        return ServiceAddress(str(ipaddress.ip_address(expanded.strip("[]"))))
    except ValueError:
        host, colon, port = expanded.rpartition(":")
    if not colon:
        raise ValueError(f'Error parsing address "{expanded}": not an IP address')
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f'Error parsing address "{expanded}": too many colons in address')
    if port and not (port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f'Error parsing port "{port}"')
    return ServiceAddress(host.strip("[]"), int(port) if port else GATEWAY_PORT)


def parse_named_address(text: str) -> tuple[str, ServiceAddress]:
    """`<name>=<ip>:<port>`."""
    name, equals, address = text.partition("=")
    if not equals:
        raise ValueError(f'Missing "=" in argument: {text}')
    return name, parse_address(address)


def flags() -> list[Flag]:
    """The command's flags."""
    address = ServiceAddress()
    env = os.environ.get
    return [
        string_flag("gateway", "The type of gateway to register: mesh"),
        bool_flag("mesh-gateway", "Deprecated name of -gateway=mesh."),
        string_flag("proxy-id", "The proxy's ID on the local agent.", env("CONNECT_PROXY_ID", "")),
        bool_flag("register", "Register a new gateway service before starting Envoy."),
        bool_flag("expose-servers", "Expose the servers for WAN federation via this mesh gateway."),
        Flag("address", "LAN address to advertise.", parse_address, address),
        Flag("wan-address", "WAN address to advertise.", parse_address, address),
        Flag(
            "bind-address",
            "Bind address to use instead of the default binding rules, as <name>=<ip>:<port>. May"
            " be specified multiple times.",
            parse_named_address,
            many=True,
        ),
        string_flag("service", "Service name to use for the registration."),
        string_flag(
            "deregister-after-critical",
            "How long the gateway's health check can fail before it is deregistered.",
            "6h",
        ),
        string_flag("admin-bind", "The address:port of Envoy's admin server.", "localhost:19000"),
        string_flag("admin-access-log-path", "Access log of the admin server.", ADMIN_ACCESS_LOG),
        bool_flag("bootstrap", "Print the bootstrap configuration and do not run Envoy."),
        string_flag("envoy-binary", "The envoy binary to run. Default: the one on $PATH."),
        string_flag(
            "grpc-addr",
            "The agent's gRPC address, as host:port, http(s)://host:port or unix:///path.",
            env("CONSUL_GRPC_ADDR", ""),
        ),
        bool_flag(
            "no-central-config",
            "Do not ask the local agent for the proxy's registration (it may not be reachable).",
        ),
        string_flag("envoy-version", "Accepted for compatibility; every version gets xDS v3."),
        *CLIENT_FLAGS,
        *NAMESPACE_FLAGS,
    ]


def run(argv: Sequence[str]) -> int:
    """Run the command; returns its exit status unless it became Envoy."""
    usage = Command(HELP, lambda _: 0, flags()).help()
    try:
        if any(arg in {"-h", "-help", "--help"} for arg in _own(argv)):
            sys.stdout.write(f"{usage}\n")
            return 0
        parsed = parse(flags(), argv)
        return _Envoy(parsed, Client(settings_from(parsed))).run()
    except FlagError as error:
        sys.stderr.write(f"{error}\n\n{usage}\n")
        return 1
    except (CommandError, ProconsulError) as error:
        sys.stderr.write(f"==> {error}\n")
        return 1


def _own(argv: Sequence[str]) -> Sequence[str]:
    return argv[: list(argv).index("--")] if "--" in argv else argv


class _Envoy:
    """One invocation."""

    def __init__(self, parsed: Parsed, agent: Client) -> None:
        self._flags, self._agent = parsed, agent
        self._gateway = str(parsed["gateway"])
        self._service = str(parsed["service"])
        self._proxy_id = str(parsed["proxy-id"])

    def run(self) -> int:
        self._validate()
        kind = GATEWAY_KINDS.get(self._gateway, "")
        self._service = self._service or kind
        if not self._proxy_id and kind:
            self._proxy_id = self._service if self._flags["register"] else self._registered(kind)
        if not self._proxy_id:
            raise CommandError("No proxy ID specified. One of -proxy-id or -gateway is required")
        if self._flags["register"]:
            self._register(kind)
        bootstrap = self._bootstrap().as_json()
        if not self._flags["bootstrap"]:
            exec_envoy(find_envoy(str(self._flags["envoy-binary"])), bootstrap, self._flags.args)
        sys.stdout.write(bootstrap.decode())
        sys.stdout.flush()
        return 0

    def _validate(self) -> None:
        if self._flags["mesh-gateway"]:
            if self._gateway:
                raise CommandError(
                    "The mesh-gateway flag is deprecated and cannot be used alongside the gateway"
                    " flag"
                )
            self._gateway = "mesh"
        if self._flags["expose-servers"]:
            if self._gateway != "mesh":
                raise CommandError("'-expose-servers' can only be used for mesh gateways")
            if not self._flags["register"]:
                raise CommandError("'-expose-servers' requires '-register'")
        if self._gateway and self._gateway not in GATEWAY_KINDS:
            raise CommandError(f"Gateway must be one of: {', '.join(GATEWAY_KINDS)}")
        if self._flags["register"] and not self._gateway:
            raise CommandError("Auto-Registration can only be used for gateways")

    def _registered(self, kind: str) -> str:
        """The id of the only gateway of this kind on the agent."""
        services = self._agent.get("/v1/agent/services") or {}
        found = [service for service in services.values() if service.get("Kind") == kind]
        if len(found) != 1:
            raise CommandError(
                f"{len(found)} {kind} services are registered with this agent: name one by"
                " -proxy-id, or register one by -register"
            )
        self._service = str(found[0]["Service"])
        return str(found[0]["ID"])

    def _register(self, kind: str) -> None:
        lan, wan = self._flags["address"], self._flags["wan-address"]
        service = {
            "Kind": kind,
            "Name": self._service,
            "ID": self._proxy_id,
            "Address": lan.host,
            "Port": lan.port,
            "Meta": {"consul-wan-federation": "1"} if self._flags["expose-servers"] else None,
            "TaggedAddresses": {
                name: address.as_json()
                for name, address in (("lan", lan), ("wan", wan))
                if address.host
            },
            "Proxy": {"Config": self._bind_config(lan, wan)},
            "Check": {
                "Name": f"{kind} listening",
                "TCP": _host_port(lan.host or "127.0.0.1", lan.port),
                "Interval": "10s",
                "DeregisterCriticalServiceAfter": self._flags["deregister-after-critical"],
            },
        }
        try:
            self._agent.put_json("/v1/agent/service/register", service)
        except ApiError as error:
            raise CommandError(f'Error registering service "{self._service}": {error}') from error
        # The bootstrap alone belongs on standard output when it was asked for.
        sys.stderr.write(f"==> Registered service: {self._service}\n")

    def _bind_config(self, lan: ServiceAddress, wan: ServiceAddress) -> Mapping[str, Any] | None:
        named = self._flags["bind-address"]
        if named:
            return {
                "envoy_gateway_no_default_bind": True,
                "envoy_gateway_bind_addresses": {
                    name: address.as_json() for name, address in named
                },
            }
        if can_bind(lan.host) and can_bind(wan.host):
            return {
                "envoy_gateway_no_default_bind": True,
                "envoy_gateway_bind_tagged_addresses": True,
            }
        if lan.host and not can_bind(lan.host):
            raise CommandError(
                f'The LAN address "{lan.host}" will not be bindable. Either set a bindable address'
                " or override the bind addresses with -bind-address"
            )
        return None

    def _bootstrap(self) -> Bootstrap:
        cluster = self._service or self._proxy_id
        if not self._flags["no-central-config"]:
            service = self._agent.get(f"/v1/agent/service/{self._proxy_id}") or {}
            proxy = service.get("Proxy") or {}
            if not proxy and not service.get("Kind"):
                raise CommandError("service is not a Connect proxy or gateway")
            cluster = proxy.get("DestinationServiceName") or cluster
        host, port = _split_host_port(str(self._flags["admin-bind"]), "-admin-bind")
        access = self._agent.settings
        agent = self._grpc_address()
        certificate = None
        if agent.tls and access.client_cert:
            key = read_text(access.client_key or access.client_cert)
            certificate = (read_text(access.client_cert), key)
        return Bootstrap(
            proxy_id=self._proxy_id,
            cluster=cluster,
            agent=agent,
            admin=(_resolve(host, "-admin-bind"), port),
            admin_access_log=str(self._flags["admin-access-log-path"]) or ADMIN_ACCESS_LOG,
            token=access.token,
            ca_pem=read_text(access.ca_file) if access.ca_file else "",
            server_name=access.tls_server_name,
            client_certificate=certificate,
        )

    def _grpc_address(self) -> AgentAddress:
        given = str(self._flags["grpc-addr"])
        address = given or f"{self._agent_host()}:{self._grpc_port()}"
        if address.startswith("unix://"):
            return AgentAddress(socket_path=address.removeprefix("unix://"))
        scheme, separator, rest = address.partition("://")
        https = scheme if separator else self._agent.settings.scheme
        tls = https.lower() == "https"
        host, port = _split_host_port(rest if separator else address, "-grpc-addr")
        return AgentAddress(_resolve(host, "-grpc-addr"), port, tls=tls)

    def _agent_host(self) -> str:
        """Where the agent serves HTTP on this machine: not necessarily on 127.0.0.1."""
        settings = self._agent.settings
        if settings.scheme == "unix":
            return "localhost"
        return settings.address.rpartition(":")[0] or "localhost"

    def _grpc_port(self) -> int:
        try:
            about = self._agent.get("/v1/agent/self") or {}
        except ApiError as error:
            sys.stderr.write(f"==> Error connecting to Consul agent: {error}\n")
            about = {}
        port = int((about.get("DebugConfig") or {}).get("GRPCPort") or 0)
        if port <= 0:
            sys.stderr.write(f"    Defaulting to grpc port = {GRPC_PORT}\n")
            return GRPC_PORT
        return port


def can_bind(host: str) -> bool:
    """Whether `host` is an IP address of this machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def read_text(path: str) -> str:
    """A file's content. Raises `CommandError` that names it."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"cannot read {path}: {error}") from error


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _split_host_port(text: str, flag: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise CommandError(f'{flag}: "{text}" is not host:port')
    return host.strip("[]"), int(port)


def _resolve(host: str, flag: str) -> str:
    """Envoy takes addresses only here. IPv4 first, as the agent listens by default."""
    try:
        found = socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise CommandError(f'{flag}: cannot resolve "{host}": {error}') from error
    return str(min(found, key=lambda entry: entry[0] != socket.AF_INET)[4][0])
