"""Hosts and ports: names, IPv4 and IPv6, in text and as sockets."""

import socket

import pytest
from adlik_common import addresses
from adlik_common.errors import InvalidRequest
from adlik_common.health import serve_http
from adlik_common.link import LinkClient, LinkServer


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


HOSTS = ["127.0.0.1", "localhost", *(["::1", "[::1]"] if has_ipv6() else [])]


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("127.0.0.1", "127.0.0.1:80"),
        ("a.example", "a.example:80"),
        ("::1", "[::1]:80"),
        ("[::]", "[::]:80"),
        ("fe80::1%eth0", "[fe80::1%eth0]:80"),
    ],
)
def test_only_an_ipv6_address_is_put_in_brackets(host, text):
    assert addresses.joined(host, 80) == text


@pytest.mark.parametrize("host", HOSTS)
async def test_a_link_listens_and_is_reached(host):
    server = LinkServer(lambda request: request.respond(b"head", request.body))
    address = await server.start(f"tcp://{addresses.joined(host, 0)}")
    client = LinkClient(address)
    assert bytes((await client.request(b"", b"body")).body) == b"body"
    await client.close()
    await server.stop(1)


@pytest.mark.parametrize("host", [*HOSTS, "0.0.0.0", *(["::", "[::]"] if has_ipv6() else [])])
async def test_http_listens(host):
    async with serve_http(lambda *_: None, host, 0) as port:
        target = host if host not in ("0.0.0.0", "::", "[::]") else "localhost"
        socket.create_connection((addresses.bare(target), port), timeout=5).close()


@pytest.mark.parametrize(
    "address", ["tcp://::1:80", "tcp://[::1", "tcp://a", "tcp://a:x", "http://a:80", "", "tcp://"]
)
async def test_what_is_no_address_is_refused(address):
    with pytest.raises(InvalidRequest, match="not a link address"):
        await LinkServer(lambda _: None).start(address)
