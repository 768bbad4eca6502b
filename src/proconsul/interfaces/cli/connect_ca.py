"""`connect ca get-config` and `connect ca set-config`: the settings of the mesh's CA."""

from __future__ import annotations

import json
from typing import Any

from proconsul.config.goflags import Parsed, string_flag
from proconsul.interfaces.cli.command import (
    CLIENT_FLAGS,
    SERVER_FLAGS,
    Command,
    CommandError,
    connect,
    out,
)

_API = (*CLIENT_FLAGS, *SERVER_FLAGS)
_CONFIGURATION = "/v1/connect/ca/configuration"
_SHOWN = ("Provider", "Config", "State", "CreateIndex", "ModifyIndex")
_TAKEN = (*_SHOWN, "ForceWithoutCrossSigning")


def _get(parsed: Parsed) -> int:
    try:
        found: dict[str, Any] = connect(parsed).get(_CONFIGURATION)
    except CommandError as error:
        raise CommandError(f"Error querying CA configuration: {error}") from None
    out(json.dumps({key: found.get(key) for key in _SHOWN}, indent="\t"))
    return 0


def _set(parsed: Parsed) -> int:
    if not parsed["config-file"]:
        raise CommandError("The -config-file flag is required")
    given = _read(parsed["config-file"])
    # Go's decoder takes keys in any case, and passes over those it does not know
    names = {key.lower(): key for key in _TAKEN}
    body = {names[key.lower()]: value for key, value in given.items() if key.lower() in names}
    try:
        connect(parsed).put(_CONFIGURATION, json.dumps(body).encode())
    except CommandError as error:
        raise CommandError(f"Error setting CA configuration: {error}") from None
    out("Configuration updated!")
    return 0


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CommandError(f"Error reading config file: open {path}: {reason}") from None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise CommandError(f"Error parsing config file: {error}") from None
    if not isinstance(found, dict):
        raise CommandError("Error parsing config file: it holds no JSON object")
    return found


GET = Command(
    usage="""
Usage: proconsul connect ca get-config [options]

  Displays the current Connect Certificate Authority (CA) configuration.""",
    run=_get,
    flags=_API,
)
SET = Command(
    usage="""
Usage: proconsul connect ca set-config [options]

  Modifies the current Connect Certificate Authority (CA) configuration. A
  new PrivateKey, with or without a RootCert, rotates the root.""",
    run=_set,
    flags=(string_flag("config-file", "The path to the config file to use."), *_API),
)
