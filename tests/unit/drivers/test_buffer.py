"""The receiving half of streams: what a broken one leaves behind."""

from __future__ import annotations

import asyncio
import weakref

import pytest

from proconsul.drivers.buffer import ReceiveBuffer, StreamError, again
from proconsul.drivers.tls_errors import TlsNameError


class _Message:
    """Stands for megabytes that a reader has gathered."""


def test_an_error_that_stays_with_the_stream_does_not_keep_what_its_reader_held() -> None:
    buffer = ReceiveBuffer()
    held: list[weakref.ref[_Message]] = []

    async def reader() -> None:
        message = _Message()
        held.append(weakref.ref(message))
        with pytest.raises(StreamError, match="session shutdown"):
            await buffer.read()
        del message

    async def careless() -> None:
        message = _Message()
        held.append(weakref.ref(message))
        try:
            await buffer.read()
        except StreamError:
            return

    async def main() -> None:
        buffer.fail(StreamError("session shutdown: EOF"), discard=False)
        await reader()
        await careless()

    asyncio.run(main())
    assert [ref() for ref in held] == [None, None]


def test_a_copy_is_the_same_error() -> None:
    error = TlsNameError("server.dc1.consul", ["localhost"])
    error.__cause__ = ValueError("why")
    copy = again(error)
    assert type(copy) is TlsNameError
    assert (str(copy), copy.offered) == (str(error), ("localhost",))
    assert copy.__cause__ is error.__cause__
