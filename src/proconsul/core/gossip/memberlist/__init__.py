"""SWIM membership with Lifeguard, speaking hashicorp/memberlist's protocol, without I/O."""

from proconsul.core.gossip.memberlist.broadcast import BroadcastQueue
from proconsul.core.gossip.memberlist.config import (
    MemberlistConfig,
    consul_lan_config,
    consul_wan_config,
    lan_config,
    wan_config,
)
from proconsul.core.gossip.memberlist.machine import Counters, Memberlist
from proconsul.core.gossip.memberlist.types import (
    Address,
    CloseStream,
    Delegate,
    JoinDone,
    LeaveDone,
    Node,
    OpenStream,
    Output,
    SendPacket,
    WriteStream,
)
from proconsul.wire.memberlist import NodeState
from proconsul.wire.memberlist_crypto import Keyring

__all__ = [
    "Address", "BroadcastQueue", "CloseStream", "Counters", "Delegate", "JoinDone", "Keyring",
    "LeaveDone", "Memberlist", "MemberlistConfig", "Node", "NodeState", "OpenStream", "Output",
    "SendPacket", "WriteStream", "consul_lan_config", "consul_wan_config", "lan_config",
    "wan_config",
]  # fmt: skip
