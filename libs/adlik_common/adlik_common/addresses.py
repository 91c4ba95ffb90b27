"""Hosts and ports as text and as sockets: names, IPv4, and IPv6 with or without its brackets."""

from __future__ import annotations

import socket

WILDCARDS = frozenset(("0.0.0.0", "::"))
"""Hosts to listen on that stand for every address of this machine, and for none to connect to."""


def bare(host: str) -> str:
    """Returns a host without the brackets that an IPv6 address has in URLs."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def joined(host: str, port: int) -> str:
    """Returns "host:port", with an IPv6 address in brackets."""
    host = bare(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listener(host: str, port: int, *, backlog: int = 1024) -> socket.socket:
    """Returns a socket that listens on a host's first address.

    Args:
        host: A name or an address; "::" takes IPv4 too, where the machine has both.
        port: Port; 0: any free one.
        backlog: Connections that may wait.

    Raises:
        OSError: The host has no address here, or the port is taken.
    """
    found = socket.getaddrinfo(
        bare(host) or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, _, _, _, address = found[0]
    both = bare(host) == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(address[:2], family=family, backlog=backlog, dualstack_ipv6=both)
