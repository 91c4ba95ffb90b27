"""Multipart uploads become a push's parts, however the body is cut into chunks."""

import gzip

import pytest
from adlik_common.errors import Cancelled, InvalidPlan, InvalidRequest
from adlik_gateway.upload.plans import MAX_JSON_BYTES
from adlik_gateway.web.multipart import push_parts
from adlik_proto.adlik.control.v1 import control_pb2
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

File = control_pb2.FileHeader
TYPE = "multipart/form-data; boundary=edge"


def form(*parts, end=b"--edge--\r\n"):
    """Returns a body of (name, file name, content)."""
    body = b""
    for name, filename, content in parts:
        file = f'; filename="{filename}"' if filename is not None else ""
        body += f'--edge\r\nContent-Disposition: form-data; name="{name}"{file}\r\n'.encode()
        body += b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n"
    return body + end


WHOLE = form(
    ("plan", None, b'{"recipes": ["clean"]}'),
    ("model", "m.onnx", b"\x08\x07\r\n--edg\r\n--edgy\0"),
    ("external", "weights/w.bin", b""),
    ("samples", "s.npz", b"\r\n\r\n-"),
)


def request(chunks, content_type=TYPE, *, disconnects=False):
    messages = [{"type": "http.request", "body": c, "more_body": True} for c in chunks]
    last = {"type": "http.disconnect"} if disconnects else {"type": "http.request", "body": b""}
    messages.append(last)
    headers = [(b"content-type", content_type.encode())] if content_type else []
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}

    async def receive():
        return messages.pop(0)

    return Request(scope, receive)


async def parts_of(chunks, content_type=TYPE):
    """Returns the parts with the chunks of a file joined."""
    found = []
    async for part in push_parts(request(chunks, content_type), "m"):
        if isinstance(part, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += part
        else:
            found.append(part)
    return found


def expected():
    header = control_pb2.PushHeader(name="m")
    header.plan.recipes.append("clean")
    return [
        header,
        File(role=File.ROLE_MODEL, name="m.onnx"),
        b"\x08\x07\r\n--edg\r\n--edgy\0",
        File(role=File.ROLE_EXTERNAL, name="weights/w.bin"),
        File(role=File.ROLE_SAMPLES, name="s.npz"),
        b"\r\n\r\n-",
    ]


async def test_a_body_cut_at_any_one_place_gives_the_same_parts():
    for cut in range(len(WHOLE) + 1):
        assert await parts_of([WHOLE[:cut], WHOLE[cut:]]) == expected(), cut


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
async def test_so_does_one_cut_everywhere(size):
    chunks = [WHOLE[i : i + size] for i in range(0, len(WHOLE), size)]
    assert await parts_of(chunks) == expected()


@given(content=st.binary(max_size=200), size=st.integers(1, 50))
async def test_any_content_comes_through(content, size):
    if b"\r\n--edge" in content:
        return
    body = form(("model", "m", content))
    chunks = [body[i : i + size] for i in range(0, len(body), size)]
    found = await parts_of(chunks)
    assert b"".join(p for p in found if isinstance(p, bytes)) == content


async def test_files_are_handed_on_while_they_arrive():
    """Nothing waits for the end: the first half is out before the second is asked for."""
    body = form(("model", "m.onnx", b"a" * 1000))
    arrived = request([body[:500]])
    parts = push_parts(arrived, "m")
    found = [await anext(parts) for _ in range(3)]
    assert found[2].strip(b"a") == b""
    assert 300 < len(found[2]) < 500


async def test_a_body_with_no_files_is_a_header_alone():
    assert await parts_of([form()]) == [control_pb2.PushHeader(name="m")]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (form(("weights", "w", b"x")), "no part 'weights'"),
        (form(("", "w", b"x")), "no part ''"),
        (form(("a" * 5000, "w", b"x")), ""),
        (form(("model", "m", b"x"), ("plan", None, b"{}")), "before the files"),
        (form(("plan", None, b" " * (MAX_JSON_BYTES + 1))), "too large"),
        (b"--other\r\n\r\nx", "can't be read"),
        (b"no form at all", "can't be read"),
        (b"", "cut off"),
    ],
)
async def test_wrong_bodies_are_refused_in_words(body, said):
    with pytest.raises(InvalidRequest) as caught:
        await parts_of([body])
    assert said in str(caught.value)


async def test_a_plan_that_cannot_be_read_is_refused():
    body = form(("plan", None, b"{recipes}"), ("model", "m", b"x"))
    with pytest.raises(InvalidPlan):
        await parts_of([body])


async def test_a_body_cut_off_anywhere_is_no_push():
    end = len(WHOLE) - len("\r\n")
    for length in range(end):
        with pytest.raises(InvalidRequest):
            await parts_of([WHOLE[:length]])


async def test_a_client_that_goes_away_is_no_end_of_the_body():
    parts = push_parts(request([WHOLE[:100]], disconnects=True), "m")
    with pytest.raises(Cancelled):
        async for _ in parts:
            pass


@pytest.mark.parametrize(
    "content_type",
    ["", "application/json", "multipart/form-data", "multipart/mixed; boundary=edge", "x" * 99],
)
async def test_another_content_type_is_refused_with_the_way_to_push(content_type):
    with pytest.raises(InvalidRequest) as caught:
        await parts_of([WHOLE], content_type)
    assert "adlik push" in caught.value.cure


@given(body=st.binary(max_size=200))
async def test_random_bodies_give_parts_or_a_refusal(body):
    for data in (body, b"--edge\r\n" + body, form(("model", "m", body), end=b"")):
        with pytest.raises((InvalidRequest, InvalidPlan)):
            await parts_of([data])


@pytest.mark.parametrize("step", [1, 1000])
async def test_a_compressed_upload_becomes_the_same_parts(step):
    body = gzip.compress(WHOLE)
    chunks = [body[at : at + step] for at in range(0, len(body), step)]
    sent = request(chunks)
    sent.scope["headers"].append((b"content-encoding", b"gzip"))
    found = b"".join([part async for part in push_parts(sent, "m") if isinstance(part, bytes)])
    plain = [part async for part in push_parts(request([WHOLE]), "m") if isinstance(part, bytes)]
    assert found == b"".join(plain)
