"""Clouds' providers, on apache-libcloud (the extra `cloud`), with go-discover's arguments."""

from proconsul.federation.discovery.cloud.aws import aws
from proconsul.federation.discovery.cloud.azure import azure
from proconsul.federation.discovery.cloud.gce import gce
from proconsul.federation.discovery.cloud.machines import aliyun, packet
from proconsul.federation.discovery.cloud.virtual import (
    digitalocean,
    linode,
    openstack,
    scaleway,
)

CLOUD_PROVIDERS = (aliyun, aws, azure, digitalocean, gce, linode, openstack, packet, scaleway)

__all__ = ["CLOUD_PROVIDERS"]
