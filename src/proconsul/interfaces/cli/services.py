"""`services register` and `services deregister`, from flags or from configuration files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proconsul.config.goflags import Parsed, int_flag, string_flag, strings_flag
from proconsul.interfaces.cli.command import (
    CLIENT_FLAGS,
    NAMESPACE_FLAGS,
    SERVER_FLAGS,
    Command,
    CommandError,
    connect,
    err,
    out,
    pairs,
)


def _from_files(paths: Sequence[str]) -> list[dict[str, Any]]:
    from proconsul.config.load import load_config
    from proconsul.util.errors import ConfigError

    flags = [part for path in paths for part in ("-config-file", path)]
    try:
        loaded = load_config(["-dev", *flags])
    except ConfigError as error:
        raise CommandError(f"Error: {error}") from None
    for warning in loaded.warnings:
        err(warning)
    return [dict(body) for body in loaded.config.service_definitions]


def _register(parsed: Parsed) -> int:
    if not parsed.args and not parsed["name"]:
        raise CommandError("Service registration requires at least one argument or flags.")
    if parsed.args and parsed["name"]:
        raise CommandError("Service registration requires arguments or -id, not both.")
    bodies = _from_files(parsed.args) if parsed.args else [_from_flags(parsed)]
    client = connect(parsed)
    for body in bodies:
        try:
            client.put_json("/v1/agent/service/register", body)
        except CommandError as error:
            raise CommandError(f'Error registering service "{body["Name"]}": {error}') from None
        out(f"Registered service: {body['Name']}")
    return 0


def _from_flags(parsed: Parsed) -> dict[str, Any]:
    body: dict[str, Any] = {
        "Kind": parsed["kind"],
        "ID": parsed["id"],
        "Name": parsed["name"],
        "Address": parsed["address"],
        "Port": parsed["port"],
        "Tags": parsed["tag"],
        "Meta": pairs(parsed["meta"], "meta"),
        "TaggedAddresses": {
            name: _address(text)
            for name, text in pairs(parsed["tagged-address"], "tagged-address").items()
        },
    }
    return {key: value for key, value in body.items() if value}


def _address(text: str) -> dict[str, Any]:
    host, colon, port = text.rpartition(":")
    if not colon:
        return {"Address": text, "Port": 0}
    try:
        return {"Address": host.strip("[]"), "Port": int(port)}
    except ValueError:
        raise CommandError(f"Invalid Tagged Address: {text}") from None


def _deregister(parsed: Parsed) -> int:
    if not parsed.args and not parsed["id"]:
        raise CommandError("Service deregistration requires at least one argument or -id.")
    if parsed.args and parsed["id"]:
        raise CommandError("Service deregistration requires arguments or -id, not both.")
    bodies = _from_files(parsed.args) if parsed.args else [{"ID": parsed["id"]}]
    client = connect(parsed)
    for body in bodies:
        name = body.get("ID") or body["Name"]
        try:
            client.put(f"/v1/agent/service/deregister/{name}")
        except CommandError as error:
            raise CommandError(f'Error registering service "{name}": {error}') from None
        out(f"Deregistered service: {name}")
    return 0


_API = (*CLIENT_FLAGS, *SERVER_FLAGS, *NAMESPACE_FLAGS)

REGISTER = Command(
    usage="""
Usage: proconsul services register [options] [FILE...]

  Registers services with the local agent, from configuration files (HCL or
  JSON) or from flags. They stay until they are deregistered.

      $ proconsul services register web.json""",
    run=_register,
    flags=(
        string_flag("address", "Address of the service."),
        string_flag("id", "ID of the service; its name by default."),
        string_flag("kind", "Kind of the service, such as mesh-gateway."),
        strings_flag("meta", "Metadata, as key=value. May be given several times."),
        string_flag("name", "Name of the service."),
        int_flag("port", "Port of the service."),
        strings_flag("tag", "A tag. May be given several times."),
        strings_flag("tagged-address", "A tagged address, as key=host:port. May be repeated."),
        *_API,
    ),
)

DEREGISTER = Command(
    usage="""
Usage: proconsul services deregister [options] [FILE...]

  Removes services from the agent that they were registered with.

      $ proconsul services deregister -id=web""",
    run=_deregister,
    flags=(string_flag("id", "ID of the service."), *_API),
)
