"""What becomes of clouds' refusals, garbage and silence: one clear line, no secret, no thread that
holds anything up."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from cloud_standin import Answer, Api, Query, as_json, discover
from federation_support import run

from proconsul.federation.discovery import Discover, DiscoveryError
from proconsul.federation.discovery.args import describe
from proconsul.federation.discovery.cloud import base
from proconsul.federation.discovery.resolver import default_providers

SECRET = "s3cr3t+/="

ENTRIES = {
    "aliyun": f'region=r tag_key=a tag_value=b access_key_id=x access_key_secret="{SECRET}"',
    "aws": f'region=eu-west-1 tag_key=a tag_value=b access_key_id=x secret_access_key="{SECRET}"',
    "azure": 'tenant_id=t client_id=c subscription_id=s tag_name=a tag_value=b '
    f'secret_access_key="{SECRET}"',
    "digitalocean": f'tag_name=gw api_token="{SECRET}"',
    "linode": f'tag_name=gw api_token="{SECRET}"',
    "os": f'user_name=me password="{SECRET}" project_name=p tag_key=a tag_value=b auth_url=URL',
    "packet": f'project=p auth_token="{SECRET}"',
    "scaleway": f'organization=o tag_name=gw token="{SECRET}"',
}  # fmt: skip

REFUSAL = json.dumps(
    {
        "message": f"no {SECRET}", "error": {"code": "Bad", "message": f"no {SECRET}"},
        "errors": [{"reason": f"no {SECRET}"}],
    }
)  # fmt: skip

ANSWERS: dict[str, Answer] = {
    "401": (401, "application/json", REFUSAL),
    "403": (403, "application/json", REFUSAL),
    "429": (429, "application/json", REFUSAL),
    "500": (500, "application/json", REFUSAL),
    "502 of a proxy": (502, "text/html", f"<html><h1>Bad Gateway {SECRET}</h1>{'x' * 5000}"),
    "no body": (503, "text/plain", ""),
    "XML": (
        403,
        "text/xml",
        "<Response><Errors><Error><Code>UnauthorizedOperation</Code>\n<Message>You are not"
        f" authorized: {SECRET}</Message></Error></Errors></Response>",
    ),
    "garbage": (200, "application/json", f"\x00{{{{ {SECRET}"),
    "other JSON": (200, "application/json", '["a", 1]'),
    "other document": (200, "application/json", '{"a": {"b": null}}'),
    "other XML": (200, "text/xml", "<a xmlns='urn:x'><b/></a>"),
}


@pytest.mark.parametrize("name", sorted(ENTRIES))
@pytest.mark.parametrize("kind", sorted(ANSWERS))
def test_every_refusal_is_one_line_without_secrets(name: str, kind: str) -> None:
    with Api(lambda *_: ANSWERS[kind]).serving() as url:
        entry = f"provider={name} {ENTRIES[name]} endpoint={url}".replace("URL", url)
        try:
            assert discover(entry) == []
            assert (name, kind) == ("linode", "other document"), "libcloud takes it for empty"
        except DiscoveryError as error:
            text = str(error)
        else:
            return
    assert text.startswith(f"discover-{name}: ")
    assert len(text) > len(f"discover-{name}: ") + 5
    assert len(text) < 600
    assert text.isprintable()
    assert SECRET not in text
    assert "s3cr3t" not in text
    assert " at 0x" not in text, "the same failure has the same text: it is logged when it changes"
    status = ANSWERS[kind][0]
    if status != 200:
        assert f"HTTP status {status}" in text
    if kind == "403":
        assert "no <hidden>" in text


def test_a_google_token_endpoint_that_refuses(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text('{"client_email": "a", "private_key": "none"}')
    with pytest.raises(DiscoveryError, match="discover-gce: ") as caught:
        discover(f"provider=gce project_name=p tag_value=a credentials_file={path}")
    assert "\n" not in str(caught.value)


def test_an_api_that_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "REQUEST_S_MAX", 0.2)

    def answer(_path: str, _query: Query, _body: Any) -> Answer:
        time.sleep(1.0)
        return as_json({})

    began = time.monotonic()
    with Api(answer).serving() as url:
        with pytest.raises(DiscoveryError, match=r"(?i)timed out"):
            discover(f"provider=linode tag_name=gw api_token=t0k3n endpoint={url}")
        took = time.monotonic() - began
    assert took < 1.0, "the request is given up, not waited for"


def test_calls_that_hang_are_counted_and_left_behind() -> None:
    def answer(_path: str, _query: Query, _body: Any) -> Answer:
        time.sleep(2.0)
        return as_json({})

    with Api(answer).serving() as url:
        entry = f"provider=linode tag_name=gw api_token=t0k3n endpoint={url}"
        discovering = Discover(default_providers())

        async def main() -> None:
            import asyncio

            for _ in range(base.CALLS_MAX):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await discovering.addrs(entry)
            with pytest.raises(DiscoveryError, match="8 earlier calls have not been answered"):
                await discovering.addrs(entry)

        began = time.monotonic()
        run(main)
        assert time.monotonic() - began < 1.5, "the end of the loop waits for no thread"


def test_values_of_misspelt_secrets_are_hidden() -> None:
    text = describe("provider=aws secret_acces_key=s3cr3t Password=x api_tokens=y tag_key=role")
    assert "s3cr3t" not in text
    assert text.count("<hidden>") == 3
    assert "tag_key=role" in text
