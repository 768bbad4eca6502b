"""What signatures of all subjects share."""

from __future__ import annotations

from proconsul.domain.base import GoStruct


class Empty(GoStruct, frozen=True, gc=False):
    """Go's `struct{}`."""
