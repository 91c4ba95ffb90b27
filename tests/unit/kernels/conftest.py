"""A cache of compiled kernels for the session, so that no test sees an older one."""

import ctypes
import mmap
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from adlik_kernels import configuration, configure, configured, load_plan
from adlik_kernels.codegen.tiles import EMULATED
from adlik_kernels.machine.target import host
from onnx import helper, numpy_helper

OPSET = 20


@pytest.fixture(scope="session", autouse=True)
def kernel_cache(tmp_path_factory):
    configure(cache=tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def empty_cache(tmp_path):
    before = configured()
    configure(cache=tmp_path)
    yield tmp_path
    configure(cache=before.cache)


@pytest.fixture
def level(request):
    """Masks the machine for one test; parametrize it indirectly."""
    configure(level=request.param)
    yield request.param
    configure(level="")


@pytest.fixture
def emulated_tiles(monkeypatch):
    """Makes operators and plans compile for AMX in software."""
    made = replace(host(), level="amx", features=host().features | {EMULATED})
    monkeypatch.setattr(configuration, "target", lambda: made)
    return made


@pytest.fixture(scope="session")
def guarded():
    """Makes arrays whose last byte is the last of a page; the next page cannot be touched."""

    def make(shape, dtype):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        pages = -(-size // mmap.PAGESIZE) + 1
        memory = mmap.mmap(-1, pages * mmap.PAGESIZE)
        raw = np.frombuffer(memory, np.uint8)
        end = (pages - 1) * mmap.PAGESIZE
        libc = ctypes.CDLL(None, use_errno=True)
        place = ctypes.c_void_p(raw.ctypes.data + end)
        assert libc.mprotect(place, mmap.PAGESIZE, 0) == 0
        return raw[end - size : end].view(dtype).reshape(shape)

    return make


class Builder:
    """Writes small ONNX models."""

    def __init__(self, shape, seed=0):
        self.rng = np.random.default_rng(seed)
        self.shape, self.nodes, self.weights, self.last = shape, [], [], "x"

    def weight(self, *shape):
        name = f"w{len(self.weights)}"
        value = self.rng.standard_normal(shape) / np.sqrt(max(np.prod(shape[1:]), 1))
        self.weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def constant(self, value):
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind, *inputs, **attributes):
        output = f"v{len(self.nodes)}"
        inputs = inputs or (self.last,)
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        self.last = output
        return output

    def conv(self, channels, filters, window, stride=1, *, source=None, bias=True):
        names = [source or self.last, self.weight(filters, channels, window, window)]
        names += [self.weight(filters)] if bias else []
        sides = {"strides": [stride] * 2, "pads": [window // 2] * 4}
        return self.node("Conv", *names, **sides)

    def save(self, path, batch="n"):
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "g",
            [info("x", onnx.TensorProto.FLOAT, [batch, *self.shape])],
            [info(self.last, onnx.TensorProto.FLOAT, None)],
            self.weights,
        )
        opset = [helper.make_opsetid("", OPSET)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
        return path

    def check(self, path, batches=(1, 3)):
        self.save(path)
        plan = load_plan(path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for batch in (*batches, batches[0]):
            x = self.rng.standard_normal((batch, *self.shape)).astype(np.float32)
            want = session.run(None, {"x": x})[0]
            np.testing.assert_allclose(plan(x), want, rtol=2e-4, atol=2e-5)
        return plan


@pytest.fixture(scope="session")
def builder():
    """The class that writes small ONNX models."""
    return Builder


@pytest.fixture
def residual_network():
    """Stem, pool, a block with a projected branch, a plain block, head: a small ResNet."""
    model = Builder((3, 23, 19))
    model.conv(3, 12, 7, 2)
    names = [model.weight(12) for _ in range(3)]
    model.node("BatchNormalization", model.last, *names, model.constant(np.ones(12, np.float32)))
    model.node("Relu")
    pooled = model.node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    short = model.conv(12, 20, 1, 2, source=pooled)
    model.conv(12, 9, 1, source=pooled)
    model.node("Relu")
    model.conv(9, 9, 3, 2, bias=False)
    model.node("Relu")
    model.conv(9, 20, 1)
    model.node("Add", model.last, short)
    block = model.node("Relu")
    model.conv(20, 20, 3)
    model.node("Sigmoid")
    model.node("Mul", model.nodes[-2].output[0], model.last)
    model.node("Add", block, model.last)
    model.node("GlobalAveragePool")
    model.node("Flatten")
    model.node("Gemm", model.last, model.weight(20, 5), model.weight(5))
    return model
