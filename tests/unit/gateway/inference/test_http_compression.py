"""Compressed bodies: all of a body or an error, however it was compressed and cut."""

import gzip
import zlib

import pytest
from adlik_common.errors import InvalidRequest
from adlik_gateway.inference import http_compression
from adlik_gateway.inference.http_compression import Inflater, content_encoding, inflated
from hypothesis import given
from hypothesis import strategies as st

BODY = bytes(range(256)) * 40


def raw_deflate(body):
    made = zlib.compressobj(wbits=-15)
    return made.compress(body) + made.flush()


def inflate(encoding, data, step=7):
    inflater = Inflater(encoding)
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    out = b"".join(made for piece in pieces for made in inflater.feed(piece))
    inflater.end()
    return out


@pytest.mark.parametrize("step", [1, 2, 1000, 1 << 20])
@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        (b"gzip", gzip.compress(BODY)),
        (b"gzip", gzip.compress(BODY[:99]) + gzip.compress(b"") + gzip.compress(BODY[99:])),
        (b"deflate", zlib.compress(BODY)),
        (b"deflate", raw_deflate(BODY)),
    ],
)
def test_the_whole_body_comes_out(encoding, data, step):
    assert inflate(encoding, data, step) == BODY


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        (b"gzip", gzip.compress(BODY)[:-1]),
        (b"gzip", gzip.compress(BODY) + gzip.compress(BODY)[:12]),
        (b"gzip", gzip.compress(BODY) + b"\x1f"),
        (b"gzip", gzip.compress(BODY) + b"garbage"),
        (b"gzip", gzip.compress(BODY) + bytes(512)),
        (b"gzip", b""),
        (b"gzip", b"{"),
        (b"gzip", BODY),
        (b"gzip", zlib.compress(BODY)),
        (b"deflate", zlib.compress(BODY)[:-1]),
        (b"deflate", zlib.compress(BODY) + b"x"),
        (b"deflate", zlib.compress(BODY) + zlib.compress(BODY)),
        (b"deflate", raw_deflate(BODY)[:-1]),
        (b"deflate", raw_deflate(BODY) + b"garbage"),
        (b"deflate", b""),
        (b"deflate", b"x"),
    ],
)
def test_what_is_cut_off_or_followed_by_more_is_refused(encoding, data, step):
    with pytest.raises(InvalidRequest):
        inflate(encoding, data, step)


@given(st.binary(max_size=300), st.sampled_from([b"gzip", b"deflate"]), st.integers(1, 50))
def test_garbage_is_refused_or_inflated(garbage, encoding, step):
    try:
        inflate(encoding, garbage, step)
    except InvalidRequest:
        return


def test_more_comes_out_of_a_piece_than_is_given_out_at_once(monkeypatch):
    monkeypatch.setattr(http_compression, "CHUNK_BYTES", 1000)
    body = bytes(100_000)
    chunks = list(Inflater(b"gzip").feed(gzip.compress(body)))
    assert max(map(len, chunks)) == 1000
    assert b"".join(chunks) == body


def test_members_without_end_are_refused():
    with pytest.raises(InvalidRequest, match="members"):
        inflate(b"gzip", gzip.compress(b"") * (http_compression.MAX_MEMBERS + 1), 1 << 20)


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        (b"", b""),
        (b"identity", b""),
        (b" GZIP ", b"gzip"),
        (b"x-gzip", b"gzip"),
        (b"gzip, identity", b"gzip"),
        (b"deflate", b"deflate"),
    ],
)
def test_the_header_names_the_encoding(header, encoding):
    assert content_encoding(header) == encoding


@pytest.mark.parametrize("header", [b"br", b"zstd", b"gzip, gzip", b"gzip;q=1"])
def test_other_encodings_are_refused_by_name(header):
    with pytest.raises(InvalidRequest, match=header.decode().split(";")[0]):
        content_encoding(header)


async def test_a_stream_is_inflated_as_it_comes():
    async def pieces():
        for byte in gzip.compress(BODY):
            yield bytes((byte,))

    assert b"".join([chunk async for chunk in inflated(pieces(), b"gzip")]) == BODY
    plain = [chunk async for chunk in inflated(pieces(), b"")]
    assert b"".join(plain) == gzip.compress(BODY)
