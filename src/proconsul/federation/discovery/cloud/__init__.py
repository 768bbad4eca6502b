"""Clouds' providers, on apache-libcloud (the extra `cloud`), with go-discover's arguments."""

from proconsul.federation.discovery.cloud.aws import aws
from proconsul.federation.discovery.cloud.large import azure, gce
from proconsul.federation.discovery.cloud.virtual import (
    digitalocean,
    linode,
    openstack,
    scaleway,
)

CLOUD_PROVIDERS = (aws, azure, digitalocean, gce, linode, openstack, scaleway)

__all__ = ["CLOUD_PROVIDERS"]
