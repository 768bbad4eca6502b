"""The line about a failed request; what real Consul prints of the same requests."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proconsul.drivers.http.message import Request
from proconsul.interfaces.http.request_log import failed_request, shown_url


def test_line_is_consuls() -> None:
    request = Request("GET", b"/v1/health/service/x?dc=nope&token=abcd", ("127.0.0.1", 5985))
    assert failed_request(request, "No path to datacenter") == (
        "Request error: method=GET url=/v1/health/service/x?dc=nope&token=<hidden>"
        ' from=127.0.0.1:5985 error="No path to datacenter"'
    )
    assert failed_request(Request("GET", b"/v1/x", ("", 0)), "EOF") == (
        "Request error: method=GET url=/v1/x from=@ error=EOF"
    )
    assert " from=[::1]:7 " in failed_request(Request("GET", b"/", ("::1", 7)), "EOF")


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        (b"/v1/kv/a%2Fb?dc=nope&x=1#f", "/v1/kv/a%2Fb?dc=nope&x=1"),
        (b"/v1/x%20y%22z?a=%22b%22&tag=a%20b", "/v1/x%20y%22z?a=%22b%22&tag=a%20b"),
        (b"/v1/catalog/nodes?dc=no'pe", "/v1/catalog/nodes?dc=no'pe"),
        (b"/v1/kv/abcd/x?token=abcd", "/v1/kv/<hidden>/x?token=<hidden>"),
        (b"/v1/x?token=", "/v1/x?token=<hidden>"),
        (b"/v1/x?token=h&q=h", "/v1/x?token=<hidden>&q=<hidden>"),
        (b"/v1/x?token=abc&token=abcd", "/v1/x?token=<hidden>&token=<hidden>"),
        (b"/v1/x?%74oken=%61bcd&q=abcd", "/v1/x?%74oken=<hidden>&q=<hidden>"),
        (b"/v1/acl/destroy/s3cret?token=s3cret&x=1", "/v1/acl/destroy/<hidden>?token=<hidden>&x=1"),
        (b"/v1/acl/info/s3cret/more", "/v1/acl/info/<hidden>"),
        (b"/v1/acl/list", "/v1/acl/list"),
    ],
)
def test_secrets_are_hidden(target: bytes, shown: str) -> None:
    assert shown_url(target) == shown


@given(before=st.binary(max_size=20), after=st.binary(max_size=20))
@settings(derandomize=True, max_examples=200)
def test_nothing_gives_a_token_away(before: bytes, after: bytes) -> None:
    secret = "5eC-reT"
    path = b"/v1/kv/" + before.replace(b"#", b"").replace(b" ", b"")
    shown = shown_url(path.replace(b"?", b"") + b"?token=" + secret.encode() + b"&" + after)
    assert secret not in shown
