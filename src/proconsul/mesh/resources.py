"""Envoy resources as the control plane handles them: named, typed, serialised, hashed.

The serialised form is deterministic, so that equal configurations have equal versions across
restarts and processes, and an Envoy that reconnects is sent nothing it already has. (Same idea as
go-control-plane's pkg/cache/v3/snapshot.go.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import any_pb2

_PREFIX = "type.googleapis.com/"
CLUSTER = _PREFIX + "envoy.config.cluster.v3.Cluster"
ENDPOINT = _PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = _PREFIX + "envoy.config.listener.v3.Listener"


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource: `body` is the serialised message, `version` a hash of it."""

    name: str
    version: str
    body: bytes

    @classmethod
    def of(cls, name: str, message: Any) -> Resource:
        """Serialise a protobuf message."""
        body: bytes = message.SerializeToString(deterministic=True)
        return cls(name, hashlib.blake2b(body, digest_size=12).hexdigest(), body)


@dataclass(frozen=True, slots=True)
class ResourceSet:
    """All resources of one proxy at one moment, each kind by name."""

    clusters: Mapping[str, Resource] = field(default_factory=dict)
    endpoints: Mapping[str, Resource] = field(default_factory=dict)
    listeners: Mapping[str, Resource] = field(default_factory=dict)

    def of_type(self, type_url: str) -> Mapping[str, Resource]:
        """The resources of a type, none if it is a type that this control plane does not serve."""
        if type_url == CLUSTER:
            return self.clusters
        if type_url == ENDPOINT:
            return self.endpoints
        if type_url == LISTENER:
            return self.listeners
        return {}


def by_name(resources: Iterable[Resource]) -> dict[str, Resource]:
    """Index resources by name; of two with one name the first stays."""
    index: dict[str, Resource] = {}
    for resource in resources:
        index.setdefault(resource.name, resource)
    return index


def packed(message: Any) -> any_pb2.Any:
    """Wrap a message in an `Any`, deterministically."""
    return any_pb2.Any(
        type_url=_PREFIX + message.DESCRIPTOR.full_name,
        value=message.SerializeToString(deterministic=True),
    )
