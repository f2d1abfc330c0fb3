"""Where a request comes from: its peer, or behind trusted proxies whoever they name."""

import ipaddress
from collections.abc import Sequence

from src.host_names import Address, address_of

_PEER_OF_SOCKET = "unix"


class Proxies:
    """Those whose word on where a request comes from is believed: addresses, networks, and `unix` for a socket's peer."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusts_sockets = _PEER_OF_SOCKET in trusted
        self._networks = [ipaddress.ip_network(word, strict=False) for word in trusted if word != _PEER_OF_SOCKET]

    def client(self, peer: str, forwarded: str) -> str:
        """The client's address: the last in X-Forwarded-For that is no trusted proxy's. What came before it may be made up."""
        address = address_of(peer)
        if not self._trusts(address):
            return str(address or _PEER_OF_SOCKET)
        for word in reversed(forwarded.split(",")):
            hop = address_of(word.strip())
            if hop is None:
                break
            address = hop
            if not self._trusts(hop):
                break
        return str(address or _PEER_OF_SOCKET)

    def is_trusted(self, peer: str) -> bool:
        return self._trusts(address_of(peer))

    def _trusts(self, address: Address | None) -> bool:
        """None: the peer of a Unix socket."""
        if address is None:
            return self._trusts_sockets
        return any(address in network for network in self._networks)


def is_loopback(text: str) -> bool:
    address = address_of(text)
    return address is not None and address.is_loopback


def network_of(address: str) -> str:
    """What one subscriber has: an IPv4 address, or a /64 of IPv6."""
    parsed = address_of(address)
    return str(ipaddress.ip_network(f"{parsed}/64", strict=False)) if isinstance(parsed, ipaddress.IPv6Address) else address
