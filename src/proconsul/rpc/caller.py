"""How everything above RPC makes calls, on servers and clients alike."""

from __future__ import annotations

from typing import Any, Protocol


class RpcCaller(Protocol):
    """A server's calls run in process or are forwarded; a client agent's go to one of its servers."""

    async def call(self, method: str, request: Any) -> Any:
        """The response of `rpc.methods.METHODS[method]`. Raises `ProconsulError`.

        A remote error keeps its text, which clients match on.
        """
        ...
