"""Host headers that no web page can send to a loopback address by a name that was made to lead there (DNS rebinding)."""

import ipaddress
import re
import socket

HOST_OF_CONTAINERS = ("host.docker.internal", "host.containers.internal")  # Docker's and Podman's


def name_of(host: str) -> str:
    """The name or address in a Host header, in lower case, without its port."""
    return re.sub(r":\d+$", "", host.strip().lower()).removeprefix("[").removesuffix("]").removesuffix(".")


def is_nobodys(name: str) -> bool:
    """Whether no attacker can have a page under this name that is made to lead here afterwards.

    Rebinding takes a name in a DNS zone of the attacker's. An address is no name. Browsers resolve localhost and what ends in it to
    loopback by themselves (RFC 6761, 6.3). The names that containers have for their host end in .internal, which ICANN keeps out of
    the DNS, and this machine's own is in no zone but its owner's.
    """
    own = socket.gethostname().lower().removesuffix(".")
    return name == "localhost" or name.endswith(".localhost") or name in (*HOST_OF_CONTAINERS, own) or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
