"""The settings of the built-in certificate authority (`CommonCAProviderConfig` and its checks).

They live in `CAConfiguration.config`, a map that users, servers of Consul's and ours write: numbers
may be text there, durations text, nanoseconds or bytes (mapstructure's "weakly typed input").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proconsul.domain.errors import DomainError
from proconsul.util.goduration import format_duration_ns, parse_duration_ns

HOUR_NS = 3_600_000_000_000
LEAF_TTL_NS = 72 * HOUR_NS
INTERMEDIATE_TTL_NS = 8760 * HOUR_NS
ROTATION_NS = 2160 * HOUR_NS
LEAF_TTL_NS_MIN, LEAF_TTL_NS_MAX = HOUR_NS, 8760 * HOUR_NS
INTERMEDIATE_TTL_NS_MIN = 3 * HOUR_NS
"""Real servers look once an hour whether half of its life is over."""
CSR_PER_SECOND = 50.0
DEFAULTS: dict[str, Any] = {
    "RotationPeriod": "2160h",
    "LeafCertTTL": "72h",
    "IntermediateCertTTL": "8760h",
}
"""What a new configuration begins with."""
_EC_BITS, _RSA_BITS = (224, 256, 384, 521), (2048, 4096)


class CaConfigError(DomainError):
    """Settings that the authority cannot work with; the text is Consul's."""


@dataclass(frozen=True, slots=True)
class AuthorityConfig:
    """Durations in nanoseconds. A `private_key` without a `root_cert` makes a root of its own."""

    private_key: str = field(default="", repr=False)
    root_cert: str = ""
    private_key_type: str = "ec"
    private_key_bits: int = 256
    leaf_ttl_ns: int = LEAF_TTL_NS
    intermediate_ttl_ns: int = INTERMEDIATE_TTL_NS
    rotation_ns: int = ROTATION_NS
    csr_per_second_max: float = CSR_PER_SECOND
    """Leaves signed a second; 0 leaves the limit to `csr_concurrent_max`."""
    csr_concurrent_max: int = 0
    skip_validate: bool = False
    disable_cross_signing: bool = False


def parse(raw: Mapping[str, Any] | None) -> AuthorityConfig:
    """The settings in `raw`, checked. Raises `CaConfigError` with Consul's text."""
    found = _decoded(raw or {})
    if found.root_cert and not found.private_key:
        raise CaConfigError("must provide a private key when providing a root cert")
    if not found.skip_validate:
        _validate(found)
    return found


def parse_lenient(raw: Mapping[str, Any] | None) -> AuthorityConfig:
    """As `parse`, of what is in force already: nothing is refused, what is senseless is default."""
    try:
        return _decoded(raw or {})
    except CaConfigError:
        return AuthorityConfig()


def _decoded(raw: Mapping[str, Any]) -> AuthorityConfig:
    by_name = {name.lower(): value for name, value in raw.items()}
    default = AuthorityConfig()

    def get(name: str) -> Any:
        value = by_name.get(name.lower())
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    return AuthorityConfig(
        private_key=_text("PrivateKey", get("PrivateKey")),
        root_cert=_text("RootCert", get("RootCert")),
        private_key_type=_text("PrivateKeyType", get("PrivateKeyType")) or default.private_key_type,
        private_key_bits=int(_number("PrivateKeyBits", get("PrivateKeyBits"), 256)),
        leaf_ttl_ns=_duration("LeafCertTTL", get("LeafCertTTL"), LEAF_TTL_NS),
        intermediate_ttl_ns=_duration(
            "IntermediateCertTTL", get("IntermediateCertTTL"), INTERMEDIATE_TTL_NS
        ),
        rotation_ns=_duration("RotationPeriod", get("RotationPeriod"), ROTATION_NS),
        csr_per_second_max=_number("CSRMaxPerSecond", get("CSRMaxPerSecond"), CSR_PER_SECOND),
        csr_concurrent_max=int(_number("CSRMaxConcurrent", get("CSRMaxConcurrent"), 0)),
        skip_validate=_flag("SkipValidate", get("SkipValidate")),
        disable_cross_signing=_flag("DisableCrossSigning", get("DisableCrossSigning")),
    )


def _validate(config: AuthorityConfig) -> None:
    if config.leaf_ttl_ns < LEAF_TTL_NS_MIN:
        raise CaConfigError("leaf cert TTL must be greater or equal than 1h0m0s")
    if config.leaf_ttl_ns > LEAF_TTL_NS_MAX:
        raise CaConfigError("leaf cert TTL must be less than 8760h0m0s")
    if config.intermediate_ttl_ns < INTERMEDIATE_TTL_NS_MIN:
        raise CaConfigError("Intermediate Cert TTL must be greater or equal than 3h")
    if config.intermediate_ttl_ns < 3 * config.leaf_ttl_ns:
        least = format_duration_ns(3 * config.leaf_ttl_ns)
        raise CaConfigError(
            f"Intermediate Cert TTL must be greater or equal than 3 * LeafCertTTL (>={least})."
        )
    match config.private_key_type:
        case "ec":
            if config.private_key_bits not in _EC_BITS:
                raise CaConfigError("EC key length must be one of (224, 256, 384, 521) bits")
        case "rsa":
            if config.private_key_bits not in _RSA_BITS:
                raise CaConfigError("RSA key length must be 2048 or 4096 bits")
        case _:
            raise CaConfigError("private key type must be either 'ec' or 'rsa'")


def _wrong(name: str, kind: str, value: object) -> CaConfigError:
    # The value itself may be a secret
    return CaConfigError(
        "error decoding config: 1 error(s) decoding:\n\n"
        f"* '{name}' expected type '{kind}', got unconvertible type '{type(value).__name__}'"
    )


def _text(name: str, value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "1" if value else "0"
        case int() | float():
            return str(value)
        case _:
            raise _wrong(name, "string", value)


def _number(name: str, value: Any, default: float) -> float:
    if value is None:
        return default
    if not isinstance(value, str | bool | int | float):
        raise _wrong(name, "int", value)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise CaConfigError(
            f"error decoding config: 1 error(s) decoding:\n\n* cannot parse '{name}' as a number"
        )
    return number


def _duration(name: str, value: Any, default: int) -> int:
    match value:
        case None:
            return default
        case str():
            try:
                return parse_duration_ns(value)
            except ValueError as error:
                raise CaConfigError(
                    "error decoding config: 1 error(s) decoding:\n\n"
                    f"* error decoding '{name}': {error}"
                ) from None
        case bool():
            raise _wrong(name, "time.Duration", value)
        case _:
            return int(_number(name, value, 0))


def _flag(name: str, value: Any) -> bool:
    match value:
        case None:
            return False
        case bool() | int() | float():
            return bool(value)
        case str():
            return value.lower() in {"1", "t", "true"}
        case _:
            raise _wrong(name, "bool", value)
