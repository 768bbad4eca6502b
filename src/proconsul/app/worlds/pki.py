"""The keys of a world: one CA, a certificate per agent, a gossip key. Key files are mode 0600."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path

from proconsul.app.worlds.spec import Host
from proconsul.drivers import certs


@dataclass(frozen=True, slots=True)
class AgentKeys:
    """Paths, as an agent's configuration names them."""

    ca: Path
    certificate: Path
    key: Path


class Pki:
    """Makes files in `directory` on demand; a host's are made once."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._ca = certs.create_ca()
        self.ca_file = directory / "consul-agent-ca.pem"
        certs.write_new(self.ca_file, self._ca.certificate, secret=False)
        certs.write_new(directory / "consul-agent-ca-key.pem", self._ca.key, secret=True)
        self.gossip_key = base64.b64encode(os.urandom(32)).decode()

    def keys(self, host: Host) -> AgentKeys:
        stem = self._directory / host.label
        paths = AgentKeys(
            self.ca_file, stem.with_suffix(".pem"), stem.with_name(f"{stem.name}-key.pem")
        )
        if not paths.key.exists():
            pair = certs.create_certificate(
                self._ca,
                certs.Role.SERVER if host.is_server else certs.Role.CLIENT,
                datacenter=host.datacenter.name,
                node=host.name if host.is_server else "",
            )
            self._write(paths, pair)
        return paths

    def replace(self, host: Host, pair: certs.KeyPair) -> None:
        """Give a host another certificate, such as a wrong one, before it (re)starts."""
        paths = self.keys(host)
        paths.certificate.unlink()
        paths.key.unlink()
        self._write(paths, pair)

    @property
    def authority(self) -> certs.KeyPair:
        """The CA itself, for tests that sign something unusual."""
        return self._ca

    @staticmethod
    def _write(paths: AgentKeys, pair: certs.KeyPair) -> None:
        certs.write_new(paths.certificate, pair.certificate, secret=False)
        certs.write_new(paths.key, pair.key, secret=True)
