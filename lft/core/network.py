"""Which of this machine's addresses others can reach."""

import socket

DISCARD = 9
"""A port to name where only the route to a host is asked for."""


def own_address(towards: str) -> str:
    """The address this machine has on its way to a host; nothing is sent. Raises OSError where there is no way."""
    family, kind, protocol, _, address = socket.getaddrinfo(towards, DISCARD, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(address)  # a datagram socket: finds the route and sends nothing
        return str(probe.getsockname()[0])


def shared_address(launcher: str) -> str:
    """This machine's address on the network on which `launcher` (an address of the one that started it) reached it.

    Without one, or where that leads nowhere but here, the address of the machine's own name; at last that name itself.
    """
    for host in filter(None, (launcher, socket.gethostname())):
        try:
            address = own_address(host)
        except OSError:
            continue
        if not address.startswith("127."):
            return address
    return socket.gethostname()
