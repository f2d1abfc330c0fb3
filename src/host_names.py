"""Host headers that no web page can send to a loopback address by a name that was made to lead there (DNS rebinding), and addresses as
they stand in headers and sockets."""

import ipaddress
import re
import socket

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
HOSTS_OF_CONTAINERS = ("host.docker.internal", "gateway.docker.internal", "host.containers.internal")  # Docker's and Podman's
LOCAL = ".local"  # of names that a network's machines tell each other


def name_of(host: str) -> str:
    """The name or address in a Host header, in lower case, without its port."""
    return re.sub(r":\d+$", "", host.strip().lower()).removeprefix("[").removesuffix("]").removesuffix(".")


def is_nobodys(name: str) -> bool:
    """Whether no attacker can have a page under this name that is made to lead here afterwards.

    Rebinding takes a name in a DNS zone of the attacker's. An address is no name. Browsers resolve localhost and what ends in it to
    loopback by themselves (RFC 6761, 6.3). The names that containers have for their host end in .internal, which ICANN keeps out of
    the DNS, and this machine's own is in no zone but its owner's. Of those that end in .local it is the only one: any other machine of
    the network may call itself by one.
    """
    own = socket.gethostname().lower().removesuffix(".").removesuffix(LOCAL)
    is_local = name == "localhost" or name.endswith(".localhost")
    return is_local or name in (*HOSTS_OF_CONTAINERS, own, own + LOCAL) or address_of(name) is not None


def address_of(text: str) -> Address | None:
    """An address as it stands in headers and sockets, with or without a port; None for what is none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if port and not port.isdecimal():
            return None
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address
