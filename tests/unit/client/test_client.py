"""The client against a real HTTP server that misbehaves as told."""

import json
import socket
import socketserver
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace

import numpy as np
import pytest
from adlik import AdlikError, Client, ConnectionFailed, oip
from adlik import client as client_module
from python_multipart.multipart import MultipartParser, parse_options_header


class Server(socketserver.ThreadingTCPServer):
    """Answers requests one after another by what a test has put into `script`.

    A step is (status, body) or a function that gets the handler; `seen` keeps what was asked.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.seen = [], []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        """Says nothing: connections are broken on purpose."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self):
        step = self.server.script.pop(0)
        if step is drop_at_once:
            self.server.seen.append((self.command, self.path, None))
            return step(self)
        self.server.seen.append((self.command, self.path, self.body()))
        if callable(step):
            return step(self)
        status, body = step
        return self.reply(status, body if isinstance(body, bytes) else json.dumps(body).encode())

    do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the names that http.server looks for

    def body(self):
        if "content-length" in self.headers:
            return self.rfile.read(int(self.headers["content-length"]))
        found = b""
        while self.headers.get("transfer-encoding") == "chunked":
            size = int(self.rfile.readline(), 16)
            found += self.rfile.read(size)
            self.rfile.readline()
            if not size:
                break
        return found

    def reply(self, status, body, **headers):
        self.send_response(status)
        for name, value in {"content-length": len(body), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def events(self, *events):
        """Sends server-sent events and closes the connection without an end."""
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event, body in events:
            text = f": comment\n\nevent: {event}\ndata: {json.dumps(body)}\n\n".encode()
            self.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
        self.close_connection = True


def drop_at_once(handler):
    """Resets the connection while the request is still arriving."""
    handler.rfile.read(100)
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()


def drop_after_reading(handler):
    """Closes the connection where the answer should come."""
    handler.connection.shutdown(socket.SHUT_RDWR)


def break_off(handler):
    """Promises more bytes than it sends."""
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"name": ')
    handler.close_connection = True


def error(code, *, retryable=False, **details):
    return {
        "error": "It broke. Mend it.", "code": code, "message": "It broke.", "cure": "Mend it.",
        "retryable": retryable, "details": details,
    }  # fmt: skip


@pytest.fixture
def server():
    made = Server()
    thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()
    assert not made.script, "every step was asked for"


@pytest.fixture
def client(server, monkeypatch):
    clock = SimpleNamespace(sleep=lambda _: None, monotonic=time.monotonic)
    monkeypatch.setattr(client_module, "time", clock)
    with Client(server.url, timeout=5) as made:
        yield made


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x07" + bytes(300_000))
    return path


PUSHED = (201, {"pushed": {"name": "m", "version": "3"}, "created": True})


def parts(handler_seen, content_type=b"multipart/form-data"):
    """Returns (part, file name, size) of a multipart body."""
    _, _, body = handler_seen
    found, headers, state = [], [], {}
    boundary = body.split(b"\r\n", 1)[0][2:]

    def data(chunk, start, end):
        found[-1][2] += end - start

    def value(chunk, start, end):
        headers.append(chunk[start:end])

    def finished():
        _, options = parse_options_header(headers[0])
        found.append([options[b"name"].decode(), options.get(b"filename", b"").decode(), 0])
        headers.clear()

    state = {"on_header_value": value, "on_headers_finished": finished, "on_part_data": data}
    MultipartParser(boundary, state).write(body)
    return [tuple(part) for part in found]


@pytest.mark.parametrize(
    "failure",
    [drop_at_once, drop_after_reading, break_off, (503, error("UNAVAILABLE", retryable=True))],
)
def test_a_push_that_got_lost_is_sent_again_whole(server, client, model, failure):
    server.script = [failure, failure, PUSHED]
    found = client.push("m", model, plan={"recipes": ["clean"]})
    assert (found.pushed.version, found.created) == (3, True)
    assert [path for _, path, _ in server.seen] == ["/v1/models/m/versions"] * 3
    assert parts(server.seen[-1]) == [
        ("plan", "", len('{"recipes": ["clean"]}')),
        ("model", "m.onnx", 300_002),
    ]


def test_a_push_is_given_up_in_the_end(server, client, model):
    busy = (503, error("UNAVAILABLE", retryable=True))
    server.script = [busy] * client_module.PUSH_ATTEMPTS
    with pytest.raises(AdlikError) as caught:
        client.push("m", model)
    assert (caught.value.code, caught.value.retryable) == ("UNAVAILABLE", True)


def test_what_is_refused_is_not_tried_again(server, client, model):
    server.script = [(400, error("INVALID_MODEL", a="b"))]
    with pytest.raises(AdlikError) as caught:
        client.push("m", model)
    assert str(caught.value) == "INVALID_MODEL: It broke. Mend it."
    assert caught.value.details == {"a": "b"}


def test_weights_beside_the_model_are_sent_when_they_are_asked_for(server, client, model):
    (model.parent / "d").mkdir()
    (model.parent / "d" / "w").write_bytes(b"abc")
    (model.parent / "v").write_bytes(b"")
    np.savez(model.parent / "s.npz", x=np.zeros(1))
    missing = (400, error("MISSING_EXTERNAL_DATA", files="d/w,v"))
    server.script = [missing, (503, error("UNAVAILABLE", retryable=True)), PUSHED]
    assert client.push("m", model, samples=model.parent / "s.npz").created
    names = [(part, name) for part, name, _ in parts(server.seen[-1])]
    wanted = [("external", "d/w"), ("external", "v")]
    assert names == [("model", "m.onnx"), ("samples", "s.npz"), *wanted]


@pytest.mark.parametrize("files", ["", "gone", "w,gone", "../secret", "/etc/hostname"])
def test_files_that_are_not_beside_the_model_are_never_sent(server, client, model, files):
    folder = model.parent / "folder"
    folder.mkdir()
    model = model.rename(folder / "m.onnx")
    (folder / "w").write_bytes(b"w")
    (folder.parent / "secret").write_bytes(b"secret")
    server.script = [(400, error("MISSING_EXTERNAL_DATA", files=files))]
    with pytest.raises(AdlikError) as caught:
        client.push("m", model)
    assert caught.value.code == "MISSING_EXTERNAL_DATA"


def test_a_mesh_that_keeps_asking_for_weights_is_not_asked_for_ever(server, client, model):
    (model.parent / "w").write_bytes(b"w")
    server.script = [(400, error("MISSING_EXTERNAL_DATA", files="w"))] * 2
    with pytest.raises(AdlikError, match="MISSING_EXTERNAL_DATA"):
        client.push("m", model)


@pytest.mark.parametrize("name", ["none.onnx", ""])
def test_a_file_that_cannot_be_read_is_told_before_anything_is_sent(client, model, name):
    with pytest.raises(AdlikError) as caught:
        client.push("m", model.parent / name)
    assert caught.value.code == "FILE_NOT_READABLE"


CALLS = [
    lambda c, path: c.push("m", path / "m.onnx"),
    lambda c, path: c.models(),
    lambda c, path: c.model("m"),
    lambda c, path: c.version("m"),
    lambda c, path: c.release("m", "v"),
    lambda c, path: c.rollback("m"),
    lambda c, path: c.replicas(),
    lambda c, path: c.jobs(),
    lambda c, path: c.trace(last=True),
    lambda c, path: c.metadata("m"),
    lambda c, path: c.infer("m", {"x": np.zeros(1)}),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "garbage",
    [(200, b"<html>Welcome to nginx!"), (200, b""), (200, b"5"), (502, b"Bad Gateway"),
     (500, b'{"error": "no Adlik"}'), (404, b"[]"), (307, b""), (200, b"\xff{")],
)  # fmt: skip
def test_an_answer_of_somebody_else_is_told_as_such(server, client, model, call, garbage):
    server.script = [garbage]
    with pytest.raises(AdlikError) as caught:
        call(client, model.parent)
    assert caught.value.code == "UNEXPECTED_ANSWER"
    assert str(garbage[0]) in caught.value.message


@pytest.mark.parametrize(
    ("tensor", "tail"),
    [
        ({"datatype": "FP32", "shape": [4], "parameters": {"binary_data_size": 8}}, bytes(8)),
        ({"datatype": "FP8", "shape": [1], "parameters": {"binary_data_size": 1}}, b"x"),
        ({"datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}}, b"\xff" * 3),
        ({"datatype": "FP32", "shape": [2], "data": ["a", "b"]}, b""),
        ({"datatype": "FP32"}, b""),
    ],
)
def test_tensors_that_are_not_what_they_say_are_told(server, client, tensor, tail):
    head = json.dumps({"outputs": [{"name": "y", **tensor}]}).encode()

    def answer(handler):
        handler.reply(200, head + tail, **{oip.JSON_LENGTH_HEADER: len(head)})

    server.script = [answer]
    with pytest.raises(AdlikError, match="UNEXPECTED_ANSWER"):
        client.infer("m", {"x": np.zeros(1)})


def test_names_are_quoted_in_paths(server, client):
    server.script = [(200, {})] * 2
    client.model("a/b?c")
    client.delete("ä")
    assert [path for _, path, _ in server.seen] == ["/v1/models/a%2Fb%3Fc", "/v1/models/%C3%A4"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1:1", "http://[", "ftp://x", "x"])
def test_where_nothing_answers_the_address_and_a_cure_are_told(url):
    with pytest.raises(ConnectionFailed) as caught, Client(url) as client:
        client.models()
    assert url in caught.value.message
    assert "adlik up" in caught.value.cure


def test_readiness_is_no_error(server, client):
    server.script = [(200, {}), (503, {}), drop_after_reading]
    assert [client.ready() for _ in range(3)] == [True, False, False]


def told(event, name="m"):
    return event, {"event": event, "model": {"name": name}}


def test_a_watch_goes_on_after_a_lost_connection(server, client):
    server.script = [
        drop_after_reading,
        lambda h: h.events(told("Snapshot"), told("ModelPushed")),
        (503, error("UNAVAILABLE", retryable=True)),
        lambda h: h.events(("Error", error("UNAVAILABLE", retryable=True))),
        lambda h: h.events(told("Snapshot"), told("ModelReleased")),
    ]
    watch = client.watch("m", timeout=60)
    found = [next(watch).event for _ in range(4)]
    assert found == ["Snapshot", "ModelPushed", "Snapshot", "ModelReleased"]
    watch.close()
    assert {path for _, path, _ in server.seen} == {"/v1/watch?name=m"}


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (drop_after_reading, "CONNECTION_FAILED"),
        (lambda h: h.events(("Error", error("UNAVAILABLE", retryable=True))), "UNAVAILABLE"),
        ((400, error("INVALID_NAME")), "INVALID_NAME"),
        ((200, b"event: X\ndata: {\n\n"), "UNEXPECTED_ANSWER"),
        ((200, b"event: Error\ndata: {}\n\n"), "UNEXPECTED_ANSWER"),
    ],
)
def test_a_watch_without_a_time_out_ends_in_words(server, client, step, code):
    server.script = [step]
    with pytest.raises(AdlikError) as caught:
        list(client.watch())
    assert caught.value.code == code


def test_a_watch_ends_at_its_time_out(server, client, monkeypatch):
    server.script = [lambda h: h.events(*[told("Snapshot")] * 2)]
    watch = client.watch(timeout=10)
    assert next(watch).event == "Snapshot"
    later = time.monotonic() + 11
    monkeypatch.setattr(client_module.time, "monotonic", lambda: later)
    with pytest.raises(AdlikError) as caught:
        next(watch)
    assert caught.value.code == "DEADLINE_EXCEEDED"


def test_a_download_is_written_whole_or_told(server, client, tmp_path):
    server.script = [(200, b"bytes"), (404, error("NOT_FOUND")), break_off]
    client.download("m", 1, "v", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"bytes"
    with pytest.raises(AdlikError, match="NOT_FOUND"):
        client.download("m", 1, "v", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(ConnectionFailed):
        client.download("m", 1, "v", tmp_path / "half")
