"""TLS settings of an agent and the `SSLContext`s built from them.

Follows Consul's `tlsutil.Configurator`: which connections verify what is decided here, names are
compared by `drivers.tls` after the handshake. Contexts are made once per (role, verification, ALPN)
and dropped on `reload`.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from proconsul.util.errors import ConfigError

_VERSIONS = {
    "tls10": ssl.TLSVersion.TLSv1,
    "tls11": ssl.TLSVersion.TLSv1_1,
    "tls12": ssl.TLSVersion.TLSv1_2,
    "tls13": ssl.TLSVersion.TLSv1_3,
}


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Consul's `verify_*`, `ca_*`, `cert_file`, `key_file`, `tls_min_version`.

    `ca_pems`, `cert_pem` and `key_pem` are in memory: what AutoEncrypt adds. A certificate there
    wins over one in files; CAs are trusted beside those in files.
    """

    ca_file: str = ""
    ca_path: str = ""
    cert_file: str = ""
    key_file: str = ""
    ca_pems: tuple[str, ...] = ()
    cert_pem: str = ""
    key_pem: str = field(default="", repr=False)
    verify_incoming: bool = False
    verify_outgoing: bool = False
    verify_server_hostname: bool = False
    min_version: str = "tls12"

    @property
    def has_ca(self) -> bool:
        return bool(self.ca_file or self.ca_path or self.ca_pems)

    @property
    def has_certificate(self) -> bool:
        return bool((self.cert_file and self.key_file) or (self.cert_pem and self.key_pem))

    @property
    def mutual_tls_capable(self) -> bool:
        """True if native TLS can be spoken: CA, certificate and key are there."""
        return self.has_ca and self.has_certificate

    @property
    def use_tls(self) -> bool:
        """True if connections inside the datacenter are wrapped in TLS (`verify_outgoing`)."""
        return self.verify_outgoing


@dataclass(frozen=True, slots=True)
class AutoTls:
    """What AutoEncrypt adds to the configured settings, on clients and (CAs alone) on servers."""

    ca_pems: tuple[str, ...] = ()
    cert_pem: str = ""
    key_pem: str = field(default="", repr=False)
    verify_outgoing: bool = False
    verify_server_hostname: bool = False

    def added_to(self, config: TlsConfig) -> TlsConfig:
        """Both together."""
        return replace(
            config,
            ca_pems=(*config.ca_pems, *self.ca_pems),
            cert_pem=self.cert_pem or config.cert_pem,
            key_pem=self.key_pem or config.key_pem,
            verify_outgoing=config.verify_outgoing or self.verify_outgoing,
            verify_server_hostname=config.verify_server_hostname or self.verify_server_hostname,
        )


class TlsContexts:
    """The `SSLContext`s of one agent. Errors in files surface at construction and `reload`."""

    def __init__(self, config: TlsConfig) -> None:
        self._contexts: dict[tuple[str, bool, tuple[str, ...]], ssl.SSLContext] = {}
        self._configured, self._auto = config, AutoTls()
        self.config = config
        self.reload(config)

    @property
    def auto(self) -> AutoTls:
        """What AutoEncrypt added."""
        return self._auto

    def update_auto(self, auto: AutoTls) -> None:
        """Let AutoEncrypt add this, in the place of what it added before. Raises `ConfigError`."""
        before, self._auto = self._auto, auto
        try:
            self.reload(self._configured)
        except ConfigError:
            self._auto = before
            raise

    def reload(self, config: TlsConfig) -> None:
        """Use `config` for connections made from now on. Raises `ConfigError`, changing nothing."""
        configured, config = config, self._auto.added_to(config)
        if config.verify_incoming and not config.has_ca:
            raise ConfigError("verify_incoming set, and no CA certificate provided: set ca_file")
        if config.verify_incoming and not config.has_certificate:
            raise ConfigError(
                "verify_incoming set, and no Cert/Key pair provided: set cert_file and key_file"
            )
        if config.verify_outgoing and not config.has_ca:
            raise ConfigError("verify_outgoing set, and no CA certificate provided: set ca_file")
        probe = _build(config, ssl.PROTOCOL_TLS_SERVER, verify=config.has_ca)
        del probe
        self._configured, self.config = configured, config
        self._contexts = {}

    @property
    def agent_cas(self) -> list[str]:
        """The CAs of the agents' certificates, as PEM texts. Raises `ConfigError`."""
        return _authorities(self._configured)

    def client(self, *, verify: bool = True, alpn: str | None = None) -> ssl.SSLContext:
        """For dialling. `verify` demands a chain to our CA; names are not OpenSSL's business."""
        names = (alpn,) if alpn else ()
        return self._get("client", verify, names)

    def server(self, *, client_certificate: bool, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
        """For accepting. `client_certificate` demands one of our CA's."""
        return self._get("server", client_certificate, alpn)

    def _get(self, role: str, verify: bool, alpn: tuple[str, ...]) -> ssl.SSLContext:
        key = (role, verify, alpn)
        context = self._contexts.get(key)
        if context is None:
            protocol = ssl.PROTOCOL_TLS_CLIENT if role == "client" else ssl.PROTOCOL_TLS_SERVER
            context = _build(self.config, protocol, verify=verify)
            if alpn:
                context.set_alpn_protocols(list(alpn))
            if role == "server":
                context.sni_callback = _remember_name
            self._contexts[key] = context
        return context


def _remember_name(connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
    """Python's server side offers no other way to learn the name that the client asked for."""
    connection.__dict__["requested_name"] = name


def requested_name(connection: ssl.SSLObject) -> str | None:
    """The SNI that the client of `connection` sent."""
    name = connection.__dict__.get("requested_name")
    return name if isinstance(name, str) else None


def _build(config: TlsConfig, protocol: int, *, verify: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    try:
        context.minimum_version = _VERSIONS[config.min_version]
    except KeyError:
        raise ConfigError(
            f"tls_min_version: {config.min_version!r} is none of {', '.join(_VERSIONS)}"
        ) from None
    # No renegotiation, and no tickets: sessions live long, resumption would buy nothing here.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
    # Python 3.11.2 (Debian 12) sets it, later ones do not: a cut stream would look like a finished one
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    if verify:
        _load_authorities(context, config)
    if config.has_certificate:
        _load_certificate(context, config)
    return context


def _authorities(config: TlsConfig) -> list[str]:
    """Those of files; what AutoEncrypt added is not among them."""
    sources = [Path(config.ca_file)] if config.ca_file else []
    if not config.ca_file and config.ca_path:
        sources = sorted(path for path in Path(config.ca_path).iterdir() if path.is_file())
    key = "ca_file" if config.ca_file else "ca_path"
    return [_read(path, key) for path in sources]


def _load_authorities(context: ssl.SSLContext, config: TlsConfig) -> None:
    pems = [*config.ca_pems, *_authorities(config)]
    if not pems:
        raise ConfigError("no CA certificate to verify peers with: set ca_file or ca_path")
    for pem in pems:
        _explained("CA certificate", partial(context.load_verify_locations, cadata=pem))


def _load_certificate(context: ssl.SSLContext, config: TlsConfig) -> None:
    if not config.cert_pem:
        _read(Path(config.cert_file), "cert_file")
        _read(Path(config.key_file), "key_file")
        _explained(
            f"cert_file {config.cert_file}, key_file {config.key_file}",
            lambda: context.load_cert_chain(config.cert_file, config.key_file),
        )
        return
    load_pair(context, config.cert_pem, config.key_pem)


def load_pair(context: ssl.SSLContext, cert_pem: str, key_pem: str) -> None:
    """Let `context` show this certificate from now on. Raises `ConfigError`."""
    # Python loads chains from files only; this one never touches a disk.
    handle = os.memfd_create("tls")
    try:
        os.write(handle, f"{cert_pem}\n{key_pem}\n".encode())
        _explained("certificate", lambda: context.load_cert_chain(f"/proc/self/fd/{handle}"))
    finally:
        os.close(handle)


def _read(path: Path, key: str) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise ConfigError(f"{key}: cannot read {path}: {error.strerror}") from error


def _explained(what: str, load: Callable[[], object]) -> None:
    try:
        load()
    except (ssl.SSLError, ValueError) as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else str(error)
        raise ConfigError(f"cannot use {what}: {reason}") from error
