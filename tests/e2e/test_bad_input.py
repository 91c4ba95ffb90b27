"""Bad input: a typed error at the API and in the command, and the mesh as healthy as before."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from adlik.errors import AdlikError
from onnx import TensorProto, helper

from tests.e2e import models
from tests.e2e.conftest import MAX_SAMPLES_BYTES, MAX_UPLOAD_BYTES
from tests.mesh import SERVICES, check_answer
from tests.unit.optimizer import graphs

HTTP_STATUS = {"TOO_LARGE": 413, "NOT_FOUND": 404}


@dataclass(frozen=True)
class BadPush:
    """A push that must be refused.

    Attributes:
        code: Of the error.
        words: What its message must name.
        model, samples: Make the file's bytes; None: a good model, no samples.
        plan: JSON text.
        name: The model's name.
    """

    code: str
    words: tuple[str, ...] = ()
    model: Callable[[Path], bytes] | None = None
    samples: Callable[[], bytes] | None = None
    plan: str = ""
    name: str = "bad"
    files: dict[str, Path] = field(default_factory=dict)


def escaping(location: str) -> Callable[[Path], bytes]:
    """Returns what makes a model whose weights lie in a file of the machine."""

    def make(folder: Path) -> bytes:
        model = models.save_external(folder / "escaping.onnx")
        models.rename_external(model, location)
        return model.read_bytes()

    return make


def truncated(folder: Path) -> bytes:
    data = models.save_small(folder / "whole.onnx").read_bytes()
    return data[: len(data) // 2]


def zipped(**arrays: np.ndarray) -> bytes:
    """Returns the bytes of an .npz archive."""
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def samples(dtype: type = np.float32, shape: tuple[int, ...] = models.INPUT) -> np.ndarray:
    return np.ones((4, *shape), dtype)


def not_finite() -> bytes:
    x = samples()
    x[1, 2, 3, 4] = np.nan
    x[2, 0, 0, 0] = np.inf
    return zipped(x=x)


def bomb() -> bytes:
    """Returns a small archive that unpacks to more than is allowed."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\0" * (5 * MAX_SAMPLES_BYTES))
    return out.getvalue()


def lying_bomb() -> bytes:
    """Returns an archive whose directory tells a smaller size than it unpacks to."""
    data = bytearray(bomb())
    true = struct.pack("<I", 5 * MAX_SAMPLES_BYTES)
    assert data.count(true) == 2
    return bytes(data.replace(true, struct.pack("<I", 5000)))


def broken_inside() -> bytes:
    """Returns an archive whose directory is right and whose compressed bytes are not."""
    out = io.BytesIO()
    rng = np.random.default_rng(1)
    np.savez_compressed(out, x=rng.standard_normal((4, *models.INPUT)).astype(np.float32))
    data = bytearray(out.getvalue())
    data[100:900] = b"\xff" * 800
    return bytes(data)


BAD_PUSHES = {
    "not a model": BadPush("INVALID_MODEL", ("format",), lambda _: b"# a text about models\n"),
    "a zip archive": BadPush("UNSUPPORTED_FORMAT", ("zip",), lambda _: zipped(x=samples())),
    "a pickle": BadPush("UNSUPPORTED_FORMAT", ("pickle",), lambda _: b"\x80\x04K\x01."),
    "no bytes": BadPush("INVALID_MODEL", ("empty",), lambda _: b""),
    "truncated": BadPush("INVALID_MODEL", (), truncated),
    "random bytes": BadPush(
        "INVALID_MODEL", (), lambda _: b"\x08\x08" + np.random.default_rng(4).bytes(5000)
    ),
    "over the limit": BadPush(
        "TOO_LARGE", (str(MAX_UPLOAD_BYTES),), lambda _: b"\x08\x08" + bytes(4 * MAX_UPLOAD_BYTES)
    ),
    "weights in ../../etc/passwd": BadPush(
        "UNSAFE_PATH", ("../../etc/passwd",), escaping("../../etc/passwd")
    ),
    "weights in /etc/passwd": BadPush("UNSAFE_PATH", ("/etc/passwd",), escaping("/etc/passwd")),
    "name with a space": BadPush("INVALID_NAME", ("bad name",), name="bad name"),
    "name that climbs": BadPush("INVALID_NAME", ("../../bad",), name="../../bad"),
    "name of 129 letters": BadPush("INVALID_NAME", (), name="n" * 129),
    "NaN in the samples": BadPush("INVALID_SAMPLES", ("'x'", "2 values"), samples=not_finite),
    "samples of a wrong shape": BadPush(
        "INVALID_SAMPLES", ("[4, 3, 9, 8]",), samples=lambda: zipped(x=samples(shape=(3, 9, 8)))
    ),
    "samples of a wrong dtype": BadPush(
        "INVALID_SAMPLES", ("float64", "FP32"), samples=lambda: zipped(x=samples(np.float64))
    ),
    "samples of another model": BadPush(
        "INVALID_SAMPLES", ("'other'",), samples=lambda: zipped(other=samples())
    ),
    "one label too few": BadPush(
        "INVALID_SAMPLES", ("labels",), samples=lambda: zipped(x=samples(), labels=np.arange(3))
    ),
    "two labels a sample": BadPush(
        "INVALID_SAMPLES", ("labels",), samples=lambda: zipped(x=samples(), labels=np.ones((4, 2)))
    ),
    "labels in words": BadPush(
        "INVALID_SAMPLES",
        ("labels",),
        samples=lambda: zipped(x=samples(), labels=np.array(["cat", "dog", "cat", "dog"])),
    ),
    "samples of objects": BadPush(
        "INVALID_SAMPLES", ("'x'", "object"), samples=lambda: zipped(x=samples(object))
    ),
    "samples that are no archive": BadPush("INVALID_SAMPLES", (), samples=lambda: b"1,2,3\n"),
    "samples that are a zip bomb": BadPush("INVALID_SAMPLES", ("unpack",), samples=bomb),
    "samples that lie about their size": BadPush("INVALID_SAMPLES", (), samples=lying_bomb),
    "samples broken inside": BadPush("INVALID_SAMPLES", (), samples=broken_inside),
    "samples over the limit": BadPush(
        "TOO_LARGE", (str(MAX_SAMPLES_BYTES),), samples=lambda: bytes(2 * MAX_SAMPLES_BYTES)
    ),
    "unknown recipe": BadPush(
        "INVALID_PLAN", ("'faster'", "clean", "int8"), plan='{"recipes": ["faster"]}'
    ),
    "unknown target": BadPush(
        "INVALID_PLAN", ("'tpu-int1'", "onnxruntime-fp32"), plan='{"targets": ["tpu-int1"]}'
    ),
    "target that can't run here": BadPush(
        "INVALID_PLAN", ("tensorrt-fp16", "not available"), plan='{"targets": ["tensorrt-fp16"]}'
    ),
    "limit out of range": BadPush(
        "INVALID_PLAN", ("min_r2", "1.5"), plan='{"limits": {"min_r2": 1.5}}'
    ),
    "plan with an unknown field": BadPush("INVALID_PLAN", ("colour",), plan='{"colour": "red"}'),
    "plan that is no JSON": BadPush("INVALID_PLAN", (), plan='{"recipes": ["clean"'),
}


@pytest.fixture(scope="module")
def good(mesh, tmp_path_factory):
    """A model that is served while others are refused."""
    path = models.save_small(tmp_path_factory.mktemp("good") / "good.onnx")
    mesh.push("good", path)
    return path


@pytest.fixture(autouse=True)
def healthy(mesh, good):
    """Checks after each test that the mesh has not even noticed."""
    before = {service: [p.pid for p in mesh.running(service)] for service in SERVICES}
    known = [model.name for model in mesh.client.models()]
    yield
    check_answer(mesh, "good", good, models.random_input())
    assert {service: [p.pid for p in mesh.running(service)] for service in SERVICES} == before
    assert mesh.client.ready()
    for model in mesh.client.models():
        if model.name not in known:
            mesh.client.delete(model.name)


@pytest.fixture(params=BAD_PUSHES)
def bad(request, tmp_path):
    """A bad push with its files written."""
    case = BAD_PUSHES[request.param]
    model = tmp_path / "model.onnx"
    if case.model is None:
        models.save_small(model)
    else:
        folder = tmp_path / "made"
        folder.mkdir()
        model.write_bytes(case.model(folder))
    case.files.clear()
    case.files["model"] = model
    if case.samples is not None:
        case.files["samples"] = tmp_path / "samples.npz"
        case.files["samples"].write_bytes(case.samples())
    if case.plan:
        case.files["plan"] = tmp_path / "plan.json"
        case.files["plan"].write_text(case.plan)
    return case


def check_refused(response: httpx.Response, code: str, *words: str) -> None:
    """Fails unless a response is the typed error that is expected."""
    said = response.json()
    assert said["code"] == code, said
    assert response.status_code == HTTP_STATUS.get(code, 400)
    assert not said["retryable"]
    assert said["message"]
    assert said["cure"]
    assert said["error"] == f"{said['message']} {said['cure']}"
    for word in words:
        assert word in said["error"]


def check_said(done, code: str, *words: str) -> None:
    """Fails unless a command has ended with the one line that is expected."""
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"adlik: {code}: ")
    for word in words:
        assert word in done.stderr


def test_a_bad_push_is_refused_by_the_api(mesh, bad):
    url = f"{mesh.http}/v1/models/{bad.name.replace('/', '%2F')}/versions"
    parts = [(part, path) for part in ("plan", "model", "samples") if (path := bad.files.get(part))]
    files = [(part, (path.name, path.read_bytes())) for part, path in parts]
    check_refused(httpx.post(url, files=files, timeout=60), bad.code, *bad.words)
    assert "bad" not in [model.name for model in mesh.client.models()]


def test_a_bad_push_is_refused_by_the_command(mesh, bad):
    options = []
    if "samples" in bad.files:
        options += ["--data", bad.files["samples"]]
    if "plan" in bad.files:
        options += ["--plan", bad.files["plan"]]
    done = mesh.cli("push", bad.files["model"], "--name", bad.name, *options, "--wait")
    # What the command can see itself, it does not send.
    words = () if bad.plan == BAD_PUSHES["plan that is no JSON"].plan else bad.words
    check_said(done, bad.code, *words)
    assert done.stdout == ""


def test_an_external_file_may_not_climb_out_of_the_upload(mesh, good):
    files = [
        ("model", ("model.onnx", good.read_bytes())),
        ("external", ("../../../etc/cron.d/evil", b"* * * * * root true\n")),
    ]
    response = httpx.post(f"{mesh.http}/v1/models/bad/versions", files=files, timeout=60)
    check_refused(response, "UNSAFE_PATH", "cron.d")


@pytest.mark.parametrize("files", [[("plan", (None, b"{}"))], [("picture", ("x", b"1"))]])
def test_a_push_needs_its_parts(mesh, files):
    response = httpx.post(f"{mesh.http}/v1/models/bad/versions", files=files, timeout=60)
    check_refused(response, "INVALID_REQUEST")


def test_a_push_that_is_cut_off_leaves_nothing(mesh, good):
    request = httpx.Request(
        "POST",
        f"{mesh.http}/v1/models/bad/versions",
        files=[("model", ("model.onnx", good.read_bytes()))],
    )
    body = request.read()[:-200]
    kind = {"content-type": request.headers["content-type"]}
    response = httpx.post(request.url, content=body, headers=kind, timeout=60)
    check_refused(response, "INVALID_REQUEST", "cut off")


def with_unknown_tensor() -> onnx.ModelProto:
    """Returns a graph whose node reads what nothing gives."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "nothing"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


UNUSABLE = {
    "custom operator": (graphs.with_custom_operator, "UNSUPPORTED_OPERATOR", "Fancy"),
    "graph with a hole": (with_unknown_tensor, "INVALID_MODEL", "nothing"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_model_that_no_engine_runs_is_explained(mesh, tmp_path, case):
    make, code, word = UNUSABLE[case]
    onnx.save(make(), tmp_path / "unusable.onnx")
    mesh.client.push("unusable", tmp_path / "unusable.onnx")
    model = mesh.wait_settled("unusable")
    assert model.release is None
    errors = [f.error for f in model.version().failures if f.stage == "compiler"]
    assert [error.code for error in errors] == [code]
    assert word in errors[0].message
    assert errors[0].cure
    with pytest.raises(AdlikError) as refused:
        mesh.client.infer("unusable", {"x": np.zeros((1, 4), np.float32)})
    assert refused.value.code == "NOT_FOUND"


@pytest.mark.parametrize("case", UNUSABLE)
def test_the_command_waits_and_explains(mesh, tmp_path, case):
    make, code, word = UNUSABLE[case]
    onnx.save(make(), tmp_path / "unusable.onnx")
    done = mesh.cli("push", tmp_path / "unusable.onnx", "--wait")
    check_said(done, code, word)


BAD_INFERS = {
    "unknown model": ("NOT_FOUND", ("goot",), "goot", {"x": samples()}),
    "wrong name of a tensor": ("INVALID_TENSOR", ("'z'", "x"), "good", {"z": samples()}),
    "one tensor too many": ("INVALID_TENSOR", ("'z'",), "good", {"x": samples(), "z": samples()}),
    "wrong shape": (
        "INVALID_TENSOR", ("x", "[4, 3, 9, 8]"), "good", {"x": samples(shape=(3, 9, 8))}
    ),
    "wrong rank": ("INVALID_TENSOR", ("x",), "good", {"x": samples()[0]}),
    "wrong dtype": ("INVALID_TENSOR", ("x", "FP64", "FP32"), "good", {"x": samples(np.float64)}),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_INFERS)
def test_a_bad_inference_is_refused_by_the_api(mesh, case):
    code, words, name, inputs = BAD_INFERS[case]
    types = {"float32": "FP32", "float64": "FP64"}
    tensors = [
        {
            "name": tensor,
            "shape": list(array.shape),
            "datatype": types[str(array.dtype)],
            "data": array.ravel().tolist(),
        }
        for tensor, array in inputs.items()
    ]
    url = f"{mesh.http}/v2/models/{name}/infer"
    check_refused(httpx.post(url, json={"inputs": tensors}, timeout=60), code, *words)
    with pytest.raises(AdlikError) as refused:  # the same in binary
        mesh.client.infer(name, inputs)
    assert refused.value.code == code
    assert all(word in str(refused.value) for word in words)


@pytest.mark.parametrize("case", BAD_INFERS)
def test_a_bad_inference_is_refused_by_the_command(mesh, tmp_path, case):
    code, words, name, inputs = BAD_INFERS[case]
    np.savez(tmp_path / "inputs.npz", **inputs)
    check_said(mesh.cli("infer", name, tmp_path / "inputs.npz"), code, *words)


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"{", {}),
        (b"[]", {}),
        (b'{"inputs": 3}', {}),
        (b'{"inputs": [{"name": "x", "shape": [1e99], "datatype": "FP32", "data": [1]}]}', {}),
        (b'{"inputs": []}', {"inference-header-content-length": "9999"}),
        (b'{"inputs": []}', {"inference-header-content-length": "many"}),
    ],
)
def test_a_malformed_inference_is_refused(mesh, content, headers):
    url = f"{mesh.http}/v2/models/good/infer"
    response = httpx.post(url, content=content, headers=headers, timeout=60)
    said = response.json()
    assert response.status_code == 400
    assert said["code"] in ("INVALID_REQUEST", "INVALID_TENSOR")
    assert said["message"]
    assert said["cure"]


def test_unknown_things_are_not_found(mesh):
    for path in (
        "/v1/models/nobody",
        "/v1/models/good/versions/9",
        "/v1/models/good/versions/1/variants/none/artifact",
        f"/v1/traces/{'0' * 32}",
        "/v1/nothing",
        "/v2/models/nobody",
    ):
        response = httpx.get(mesh.http + path, timeout=60)
        assert response.status_code == 404, path
        assert response.json()["code"] == "NOT_FOUND", path


def test_commands_about_unknown_models_end_in_one_line(mesh):
    for arguments in (
        ("show", "nobody"),
        ("delete", "nobody"),
        ("rollback", "nobody"),
        ("release", "nobody", "pushed.onnxruntime-fp32"),
        ("trace", "nobody"),
        ("bench", "nobody"),
    ):
        check_said(mesh.cli(*arguments), "NOT_FOUND", "nobody")


def test_json_output_tells_the_error_too(mesh):
    done = mesh.cli("show", "nobody", "--json")
    check_said(done, "NOT_FOUND")
    assert json.loads(done.stdout)["code"] == "NOT_FOUND"
