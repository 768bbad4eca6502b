"""`auto_encrypt` and `connect.ca_config`: certificates that agents and services get from us.

After `agent/config/builder.go`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Any

from proconsul.config import model
from proconsul.domain import ca_config


def build(tree: Mapping[str, Any], warnings: list[str]) -> model.AutoEncrypt:
    """The section's settings; addresses that are none are left out with a warning."""
    addresses = []
    for text in tree.get("ip_san", ()):
        try:
            addresses.append(ipaddress.ip_address(text))
        except ValueError:
            warnings.append(f'Cannot parse ip "{text}" from AutoEncrypt.IPSAN')
    return model.AutoEncrypt(
        tls=tree.get("tls", False),
        allow_tls=tree.get("allow_tls", False),
        dns_san=tuple(tree.get("dns_san", ())),
        ip_san=tuple(addresses),
    )


def check(config: model.AgentConfig, refuse: Callable[..., None]) -> None:
    """Refuse what cannot work; `refuse(when, key, text, remedy)`."""
    auto = config.auto_encrypt
    refuse(
        config.server and auto.tls, "auto_encrypt.tls",
        "auto_encrypt.tls can only be used on a client.", "Remove it",
    )  # fmt: skip
    refuse(
        not config.server and auto.allow_tls, "auto_encrypt.allow_tls",
        "auto_encrypt.allow_tls can only be used on a server.", "Remove it",
    )  # fmt: skip
    refuse(
        auto.allow_tls and not config.tls.has_certificate, "auto_encrypt.allow_tls",
        "auto_encrypt.allow_tls needs a certificate of the server's own",
        "Set ca_file, cert_file and key_file",
    )  # fmt: skip
    if config.connect.ca_provider == "consul":
        try:
            ca_config.parse(config.connect.ca_config)
        except ca_config.CaConfigError as error:
            refuse(True, "connect.ca_config", str(error), "Correct it")


def warnings(config: model.AgentConfig) -> list[str]:
    """What may be meant so."""
    if config.auto_encrypt.allow_tls and not config.tls.verifies_incoming_rpc:
        return [
            "if auto_encrypt.allow_tls is turned on, either verify_incoming or "
            "verify_incoming_rpc should be enabled. It is necessary to turn it off during a "
            "migration to TLS, but it should definitely be turned on afterwards."
        ]
    return []
