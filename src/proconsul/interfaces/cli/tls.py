"""`tls ca create` and `tls cert create`; files are named as Consul names them, keys are 0600."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from proconsul.config.goflags import Parsed, bool_flag, int_flag, string_flag, strings_flag
from proconsul.interfaces.cli.command import Command, CommandError, out

if TYPE_CHECKING:
    from proconsul.drivers.certs import KeyPair

_MAX_NUMBERED_FILES = 10_000
_WARNING = """==> WARNING: Server Certificates grants authority to become a
    server and access all state in the cluster including root keys
    and all ACL tokens. Do not distribute them to production hosts
    that are not server nodes. Store them as securely as CA keys."""


def _ca_create(parsed: Parsed) -> int:
    from proconsul.drivers import certs

    domain = parsed["domain"]
    certificate, key = Path(f"{domain}-agent-ca.pem"), Path(f"{domain}-agent-ca-key.pem")
    for path in (certificate, key):
        if path.exists():
            raise CommandError(f"{path} already exists.")
    constraints: list[str] = []
    if parsed["name-constraint"]:
        constraints = [*parsed["additional-name-constraint"], domain, "localhost"]
    _save(certs.create_ca(days=_days(parsed), name_constraints=constraints), certificate, key)
    return 0


def _days(parsed: Parsed) -> int:
    days = parsed["days"]
    if not 0 < days < 365_000:
        raise CommandError(f"-days cannot be {days}. Give a positive number of days")
    return int(days)


def _save(pair: KeyPair, certificate: Path, key: Path) -> None:
    from proconsul.drivers import certs

    for path, data, secret in ((certificate, pair.certificate, False), (key, pair.key, True)):
        try:
            certs.write_new(path, data, secret=secret)
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}") from None
        out(f"==> Saved {path}")


def _read(path: str, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CommandError(f"Error reading {what}: open {path}: {reason}") from None


def _cert_create(parsed: Parsed) -> int:
    from proconsul.drivers import certs

    for name, what in (("ca", "ca"), ("key", "key")):
        if not parsed[name]:
            raise CommandError(f"Please provide the {what}")
    roles = [role for role in certs.Role if parsed[role.value]]
    if len(roles) != 1:
        raise CommandError("Please provide either -server, -client, or -cli")
    role = roles[0]
    if parsed["node"] and role is not certs.Role.SERVER:
        raise CommandError("-node requires -server")
    domain, datacenter = parsed["domain"], parsed["dc"]
    certificate, key = _free_names(f"{datacenter}-{role.value}-{domain}")
    ca_file = parsed["ca"].replace("#DOMAIN#", domain, 1)
    key_file = parsed["key"].replace("#DOMAIN#", domain, 1)
    ca = certs.KeyPair(_read(ca_file, "CA"), _read(key_file, "CA key"))
    if role is certs.Role.SERVER:
        out(_WARNING)
    out(f"==> Using {ca_file} and {key_file}")
    try:
        pair = certs.create_certificate(
            ca,
            role,
            datacenter=datacenter,
            domain=domain,
            node=parsed["node"],
            days=_days(parsed),
            dns_names=parsed["additional-dnsname"],
            ip_addresses=parsed["additional-ipaddress"],
        )
    except (certs.CertificateError, ValueError) as error:
        raise CommandError(str(error)) from None
    _save(pair, certificate, key)
    return 0


def _free_names(prefix: str) -> tuple[Path, Path]:
    for number in range(_MAX_NUMBERED_FILES):
        certificate = Path(f"{prefix}-{number}.pem")
        key = Path(f"{prefix}-{number}-key.pem")
        if not certificate.exists() and not key.exists():
            return certificate, key
    raise CommandError("Could not find a filename that doesn't already exist")


CA_CREATE = Command(
    usage="""
Usage: proconsul tls ca create [options]

  Creates a CA for TLS between agents, in the current directory:

  $ proconsul tls ca create
  ==> Saved consul-agent-ca.pem
  ==> Saved consul-agent-ca-key.pem""",
    run=_ca_create,
    flags=(
        strings_flag(
            "additional-name-constraint",
            "A further DNS name that the CA may sign for, with -name-constraint. May be repeated.",
        ),
        int_flag("days", "Days that the CA is valid for. Defaults to 5 years.", 1825),
        string_flag("domain", "Domain of the cluster.", "consul"),
        bool_flag(
            "name-constraint",
            "Let the CA sign only for -domain, localhost and -additional-name-constraint.",
        ),
    ),
)

CERT_CREATE = Command(
    usage="""
Usage: proconsul tls cert create [options]

  Creates a certificate and its key, in the current directory:

  $ proconsul tls cert create -server -dc dc1 -node s1
  ==> Using consul-agent-ca.pem and consul-agent-ca-key.pem
  ==> Saved dc1-server-consul-0.pem
  ==> Saved dc1-server-consul-0-key.pem""",
    run=_cert_create,
    flags=(
        strings_flag("additional-dnsname", "A further DNS name; localhost is always included."),
        strings_flag("additional-ipaddress", "A further address; 127.0.0.1 is always included."),
        string_flag("ca", "The CA's certificate.", "#DOMAIN#-agent-ca.pem"),
        bool_flag("cli", "A certificate for the command line."),
        bool_flag("client", "A certificate for a client agent."),
        int_flag("days", "Days that the certificate is valid for. Defaults to 1 year.", 365),
        string_flag("dc", "The datacenter.", "dc1"),
        string_flag("domain", "Domain of the cluster.", "consul"),
        string_flag("key", "The CA's key.", "#DOMAIN#-agent-ca-key.pem"),
        string_flag(
            "node",
            "With -server: adds the name <node>.server.<dc>.<domain>, which federation through mesh"
            " gateways needs.",
        ),
        bool_flag("server", "A certificate for a server agent."),
    ),
)
