"""Bind, client and advertise settings -> the resolved `Addresses` (`builder.go`, "addresses")."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from proconsul.config import sockaddr
from proconsul.config.errors import SettingError
from proconsul.config.merge import Merged
from proconsul.config.model import Address, Addresses, ListenAddress, Ports

ANY_V4 = "0.0.0.0"
ANY_V6 = "::"


def is_any(host: str) -> bool:
    return host in (ANY_V4, ANY_V6, "[::]")


@dataclass(frozen=True, slots=True)
class AddressBuilder:
    """Resolves address settings. `interfaces` lists the machine's addresses."""

    merged: Merged
    ports: Ports
    interfaces: Callable[[], list[sockaddr.Interface]] = sockaddr.interfaces

    def fail(self, key: str, message: str, remedy: str) -> SettingError:
        return SettingError(message, key=key, source=self.merged.origin(key), remedy=remedy)

    def expand_strings(self, key: str) -> tuple[str, ...]:
        """A list in which each item may be a template; items need not be addresses."""
        out: list[str] = []
        for item in self.merged.get(key, ()):
            expanded = self._expand(key, item)
            out.extend(expanded.split() if expanded != item else [item])
        return tuple(item for item in out if item)

    def _expand(self, key: str, text: str) -> str:
        try:
            return sockaddr.expand(text, self.interfaces)
        except (ValueError, OSError) as error:
            raise self.fail(
                key, f'{key}: error parsing "{text}": {error}', "Give a literal address"
            ) from None

    def many(self, key: str) -> tuple[str, ...]:
        """IP literals and `unix://` paths of one setting."""
        text = self.merged.get(key) or ""
        out: list[str] = []
        for item in self._expand(key, text).split():
            if item.startswith("unix://"):
                out.append(item)
                continue
            try:
                out.append(str(ipaddress.ip_address(item.strip("[]"))))
            except ValueError:
                raise self.fail(
                    key, f"{key}: invalid ip address: {item}", "Give an IP address"
                ) from None
        return tuple(out)

    def one(self, key: str) -> str:
        """The one IP literal of a setting, "" where it is not set."""
        found = self.many(key)
        if len(found) > 1:
            raise self.fail(
                key, f"{key}: multiple addresses found: {' '.join(found)}", "Give one of them"
            )
        if found and found[0].startswith("unix://"):
            raise self.fail(key, f"{key} cannot be a unix socket", "Give an IP address")
        return found[0] if found else ""

    def build(self) -> Addresses:
        """Resolve everything. Raises SettingError."""
        bind = self._bind()
        advertise = self._advertise(bind)
        wan = self._not_any("advertise_addr_wan", "Advertise WAN address") or advertise
        client = self.many("client_addr")
        if any(c.startswith("unix://") for c in client):
            raise self.fail(
                "client_addr", "client_addr cannot be a unix socket", "Use addresses.http instead"
            )
        lan_bind = self.one("serf_lan") or bind
        wan_bind = self.one("serf_wan") or bind
        ports = self.ports
        for key in ("server", "serf_lan"):
            if getattr(ports, key) < 0:
                raise self.fail(
                    f"ports.{key}", f"ports.{key} cannot be disabled", "Give it a port number"
                )
        has_wan = ports.serf_wan > 0
        return Addresses(
            bind=bind,
            advertise=advertise,
            advertise_wan=wan,
            client=client,
            dns=self._dns(client),
            http=self._listen("addresses.http", client, ports.http),
            https=self._listen("addresses.https", client, ports.https),
            grpc=self._listen("addresses.grpc", client, ports.grpc),
            rpc_bind=(bind, ports.server),
            rpc_advertise=(advertise, ports.server),
            serf_lan_bind=(lan_bind, ports.serf_lan),
            serf_lan_advertise=(advertise, ports.serf_lan),
            serf_wan_bind=(wan_bind, ports.serf_wan) if has_wan else None,
            serf_wan_advertise=(wan, ports.serf_wan) if has_wan else None,
            tagged=self._tagged(advertise, wan),
        )

    def _bind(self) -> str:
        found = self.many("bind_addr")
        if not found:
            raise self.fail("bind_addr", "bind_addr cannot be empty", "Give an IP address")
        if len(found) > 1:
            raise self.fail(
                "bind_addr",
                "bind_addr cannot contain multiple addresses",
                "Use 'addresses.{dns,http,https}' instead",
            )
        if found[0].startswith("unix://"):
            raise self.fail("bind_addr", "bind_addr cannot be a unix socket", "Give an IP address")
        return found[0]

    def _not_any(self, key: str, what: str) -> str:
        host = self.one(key)
        if is_any(host):
            raise self.fail(
                key,
                f"{what} cannot be 0.0.0.0, :: or [::]",
                "Give the address at which others reach this agent",
            )
        return host

    def _advertise(self, bind: str) -> str:
        host = self._not_any("advertise_addr", "Advertise address") or bind
        if not is_any(host):
            return host
        if host == ANY_V4:
            kind, detect = "private IPv4", sockaddr.private_ipv4
        else:
            kind, detect = "public IPv6", sockaddr.public_ipv6
        remedy = "Set 'bind_addr' (-bind) or 'advertise_addr' (-advertise)"
        try:
            found = detect(self.interfaces())
        except OSError as error:
            raise SettingError(
                f"Error detecting {kind} address: {error}", key="advertise_addr", remedy=remedy
            ) from None
        if not found:
            raise SettingError(f"No {kind} address found", key="advertise_addr", remedy=remedy)
        if len(found) > 1:
            raise SettingError(
                f"Multiple {kind} addresses found. Please configure one with 'bind' and/or"
                " 'advertise'",
                key="advertise_addr",
                remedy=f"Found: {', '.join(found)}",
            )
        return found[0]

    def _listen(self, key: str, client: tuple[str, ...], port: int) -> tuple[ListenAddress, ...]:
        if port <= 0:
            return ()
        return tuple(
            host.removeprefix("unix://") if host.startswith("unix://") else (host, port)
            for host in self.many(key) or client
        )

    def _dns(self, client: tuple[str, ...]) -> tuple[Address, ...]:
        found = self._listen("addresses.dns", client, self.ports.dns)
        addresses: list[Address] = []
        for address in found:
            if isinstance(address, str):
                raise self.fail(
                    "addresses.dns", "DNS address cannot be a unix socket", "Give an IP address"
                )
            addresses.append(address)
        return tuple(addresses)

    def _tagged(self, lan: str, wan: str) -> dict[str, str]:
        tagged = dict(self.merged.get("tagged_addresses", {}))
        for name, host in (("lan", lan), ("wan", wan)):
            tagged[name] = host
            for version, key in ((4, "ipv4"), (6, "ipv6")):
                setting = f"advertise_addr{'_wan' if name == 'wan' else ''}_{key}"
                own = self.one(setting)
                if own and ipaddress.ip_address(own).version != version:
                    raise self.fail(
                        setting,
                        f"{setting} must be an {key} address",
                        f"Give an IPv{version} address",
                    )
                if own or ipaddress.ip_address(host).version == version:
                    tagged[f"{name}_{key}"] = own or host
        return tagged
