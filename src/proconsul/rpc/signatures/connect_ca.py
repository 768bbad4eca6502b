"""`ConnectCA.*` and `AutoEncrypt.Sign`."""

from __future__ import annotations

from proconsul.domain import connect as ca
from proconsul.domain.options import DCSpecificRequest
from proconsul.rpc.table import Method, Route

_LEADER = Route.LEADER

SIGNATURES = (
    Method("ConnectCA.Roots", DCSpecificRequest, ca.IndexedCARoots, _LEADER),
    Method("ConnectCA.ConfigurationGet", DCSpecificRequest, ca.CAConfiguration, _LEADER),
    Method("ConnectCA.ConfigurationSet", ca.CARequest, None, _LEADER, is_read=False),
    Method("ConnectCA.Sign", ca.CASignRequest, ca.IssuedCert, _LEADER, is_read=False),
    Method("ConnectCA.SignIntermediate", ca.CASignRequest, str, _LEADER, is_read=False),
    # Real servers forward it by an insecure connection: whoever is asked here asks the leader to sign.
    Method("AutoEncrypt.Sign", ca.CASignRequest, ca.SignedResponse, Route.HERE, is_read=False),
)
