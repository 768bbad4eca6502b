"""`keygen`: a key for gossip encryption."""

from __future__ import annotations

import base64
import os

from proconsul.config.goflags import Parsed
from proconsul.interfaces.cli.command import Command, out


def run(_: Parsed) -> int:
    """Prints 32 random bytes in base 64."""
    out(base64.b64encode(os.urandom(32)).decode())
    return 0


COMMAND = Command(
    usage="""
Usage: proconsul keygen

  Generates a new 32-byte key for gossip encryption, as `encrypt` takes it.""",
    run=run,
)
