"""Runs every public operator on arrays that lie against pages nobody may touch.

    python fences.py operators LEVEL CACHE MODEL.onnx…   all cases, arrays behind and before a fence
    python fences.py toy CACHE reads|writes FROM TO      a kernel that touches the places FROM to TO
    python fences.py names                               which operators the cases cover

A number touched outside an array ends the process with a signal; its last line tells the case.
"""

import ctypes
import mmap
import struct
import sys

import adlik_kernels as kernels
import numpy as np
from adlik_kernels import Levels, Quantization, configure

PAGE = mmap.PAGESIZE
SIDES = ("end", "begin")
CANARY = 0xA5


class Fence:
    """Makes arrays that end, or begin, exactly at a page that cannot be touched."""

    def __init__(self, side):
        self.side, self.slack = side, []
        self.libc = ctypes.CDLL(None, use_errno=True)

    def empty(self, shape, dtype):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        pages = -(-size // PAGE)
        raw = np.frombuffer(mmap.mmap(-1, (pages + 2) * PAGE), np.uint8)
        for page in (0, pages + 1):
            start = ctypes.c_void_p(raw.ctypes.data + page * PAGE)
            assert self.libc.mprotect(start, PAGE, 0) == 0
        open_ = raw[PAGE : (pages + 1) * PAGE]
        open_[:] = CANARY
        cut = len(open_) - size
        inside, rest = (open_[cut:], open_[:cut])
        if self.side == "begin":
            inside, rest = open_[:size], open_[size:]
        self.slack.append(rest)
        return inside.view(dtype).reshape(shape)

    def copy(self, array):
        made = self.empty(array.shape, array.dtype)
        made[...] = array
        return made

    def check(self):
        """Nothing was written on the other side either."""
        for rest in self.slack:
            assert (rest == CANARY).all(), "something was written outside an array"
        self.slack.clear()


def same(fence, call, *arrays, out=True):
    """The call says the same with arrays at the fence as with arrays anywhere."""
    want = call(*arrays)
    places = {"out": fence.empty(want.shape, want.dtype)} if out else {}
    got = call(*(fence.copy(array) for array in arrays), **places)
    for mine, theirs in zip(parts(got), parts(want), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def parts(result):
    if isinstance(result, kernels.Detections):
        return result.boxes, result.scores, result.classes
    return result if isinstance(result, list | tuple) else (result,)


def floats(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def levels(*shape, dtype=np.uint8):
    low = np.iinfo(dtype).min
    return np.random.default_rng(1).integers(low, low + 256, shape).astype(dtype)


ROWS = [(1, 1, 1), (9, 49, 31)]
LEVELS = Quantization(0.1, 3, 0.05, 0.2, 10)


def dense(fence):
    for rows, columns, depth in ROWS:
        arrays = floats(rows, depth), floats(depth, columns), floats(columns)
        same(fence, kernels.dense, *arrays)


def prepare_dense(fence):
    for rows, columns, depth in ROWS:
        w, bias = fence.copy(floats(depth, columns)), fence.copy(floats(columns))
        for dtype in ("fp32", "bf16"):
            layer = kernels.prepare_dense(w, bias, residual=True, dtype=dtype)

            def call(x, residual, layer=layer, **out):
                return layer(x, residual=residual, **out)

            same(fence, call, floats(rows, depth), floats(rows, columns))


def prepare_dense_int8(fence):
    for rows, columns, depth in ROWS:
        w = fence.copy(levels(depth, columns, dtype=np.int8))
        for wanted in (LEVELS, Quantization(0.1, 3, 0.05)):
            layer = kernels.prepare_dense_int8(w, wanted, fence.copy(floats(columns)))
            same(fence, layer, levels(rows, depth))


def prepare_conv2d(fence):
    for padding in ((0, 0), (1, 1)):
        w, bias = fence.copy(floats(17, 5, 3, 3)), fence.copy(floats(17))
        layer = kernels.prepare_conv2d(w, (7, 9), bias, "relu", padding=padding)
        same(fence, layer, floats(2, 7, 9, 5))


def prepare_conv2d_int8(fence):
    for padding in ((0, 0), (1, 1)):
        w = fence.copy(levels(17, 8, 3, 3, dtype=np.int8))
        layer = kernels.prepare_conv2d_int8(w, (7, 9), LEVELS, stride=(2, 2), padding=padding)
        same(fence, layer, levels(2, 7, 9, 8))


def image_input(fence):
    for given in ((1, 1, 3), (5, 7, 3), (33, 19, 3)):
        for scale in (0.0, 0.02):
            prepare = kernels.ImageInput(9, 13, letterbox=given == (5, 7, 3), scale=scale)
            same(fence, prepare, levels(*given))


def stack(fence):
    prepare = kernels.ImageInput(9, 13)
    same(fence, lambda *all_: kernels.stack(all_, prepare), levels(5, 7, 3), out=False)


def detect(fence):
    for layout, shape in (("yolov8", (7, 37)), ("yolov5", (37, 8))):
        table = np.abs(floats(*shape))
        same(fence, lambda x, layout=layout: kernels.detect(x, layout=layout), table, out=False)


def suppress(fence):
    boxes = np.abs(floats(37, 4))
    boxes[:, 2:] += boxes[:, :2]
    classes = (np.arange(37) % 3).astype(np.int32)
    same(fence, kernels.suppress, boxes, floats(37), classes, out=False)


def softmax_top_k(fence):
    for shape in ((1, 1), (3, 17), (2, 129)):
        k = min(5, shape[1])
        same(fence, lambda x, k=k: kernels.softmax_top_k(x, k), floats(*shape), out=False)


def gather(fence):
    same(
        fence,
        lambda *all_, **out: kernels.gather(all_, rows=6, **out),
        *(floats(1, 7), floats(3, 7)),
    )


def scatter(fence):
    same(fence, lambda x: kernels.scatter(x, [1, 3]), floats(5, 7), out=False)


PICTURES = [(1, 3, 5, 7), (1, 19, 7, 11), (2, 35, 1, 2)]


def changes_of_layout(fence):
    for shape in PICTURES:
        for x in (floats(*shape), levels(*shape)):
            same(fence, kernels.to_channels_last, x)
            same(fence, kernels.to_channels_first, np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
        x, q = floats(*shape), levels(*shape)
        same(fence, lambda x, **out: kernels.quantize_to_channels_last(x, 0.1, 7, **out), x)
        same(fence, lambda q, **out: kernels.dequantize_to_channels_first(q, 0.1, 7, **out), q)


def blocks(fence):
    for channels in (3, 16, 21):
        same(fence, kernels.to_blocked, floats(2, 3, 5, channels))
        blocked = floats(2, -(-channels // 16), 3, 5, 16)
        same(fence, lambda x, c=channels, **out: kernels.from_blocked(x, c, **out), blocked)


def transpose(fence):
    for shape in ((1, 9), (7, 70), (33, 18)):
        same(fence, lambda x, **out: kernels.transpose(x, (1, 0), **out), floats(*shape))
    same(fence, lambda x, **out: kernels.transpose(x, (2, 0, 3, 1), **out), floats(3, 5, 7, 18))


def pools(fence):
    sides = {"stride": (2, 1), "padding": (1, 1)}
    for channels in (1, 21):
        for x in (floats(2, 5, 7, channels), levels(2, 5, 7, channels)):
            same(fence, lambda x, **out: kernels.max_pool(x, (3, 3), **sides, **out), x)
            same(fence, lambda x, **out: kernels.average_pool(x, (3, 2), **sides, **out), x)
            same(fence, kernels.global_average_pool, x)


def numbers(fence):
    one, table = Levels(0.1, 7), levels(256)
    for count in (1, 3, 17, 63, 65, 200, 5000):
        x, q = floats(count), levels(count)
        same(fence, lambda x, **out: kernels.quantize(x, 0.1, 7, **out), x)
        same(fence, lambda q, **out: kernels.dequantize(q, 0.1, 7, **out), q)
        same(fence, lambda p, q, **out: kernels.add_quantized(p, q, (one,) * 3, **out), q, q)
        same(fence, kernels.look_up, q, table)


def numbers_along_axes(fence):
    x, q = floats(5, 21), levels(5, 21)
    for axis in (0, 1):
        size = x.shape[axis]
        rest = np.linspace(0.1, 0.2, size), np.arange(size)

        def there(x, rest=rest, axis=axis, **out):
            return kernels.quantize(x, *rest, axis=axis, **out)

        def back(q, rest=rest, axis=axis, **out):
            return kernels.dequantize(q, *rest, axis=axis, **out)

        same(fence, there, x)
        same(fence, back, q)


def other_convolutions(fence):
    w, bias, x = fence.copy(floats(17, 5, 3, 3)), fence.copy(floats(17)), floats(2, 7, 9, 5)
    sides = {"padding": (1, 1)}
    for results in (2, 4):
        same(fence, kernels.prepare_winograd(w, (7, 9), bias, **sides, results=results), x)
    turned = fence.copy(floats(5, 17, 3, 3))
    layer = kernels.prepare_conv2d_transposed(turned, (7, 9), bias, stride=(2, 1), **sides)
    same(fence, layer, x)


def depthwise(fence):
    for channels in (1, 21, 64):
        shape, sides = (2, 7, 9, channels), {"stride": (2, 1), "padding": (1, 1)}
        w, bias = fence.copy(floats(channels, 1, 3, 3)), fence.copy(floats(channels))
        same(fence, kernels.prepare_depthwise(w, (7, 9), bias, **sides), floats(*shape))
        w = fence.copy(levels(channels, 1, 3, 3, dtype=np.int8))
        layer = kernels.prepare_depthwise_int8(w, (7, 9), LEVELS, bias, **sides)
        same(fence, layer, levels(*shape))


def rows(fence):
    for count, columns in ((1, 1), (5, 17), (3, 200)):
        x, scale = floats(count, columns), floats(columns)
        same(fence, kernels.softmax, x)
        same(fence, kernels.layer_norm, x, scale, scale)
        same(fence, kernels.add, x, x)
        same(fence, kernels.multiply, x, x)
        same(fence, lambda x, **out: kernels.apply_activation(x, "gelu", **out), x)


def lookups(fence):
    for columns in (1, 21):
        table, indices = floats(6, columns), np.array([5, 0, 3, 5, 1], np.int64)
        same(fence, kernels.embedding, table, indices)
        same(fence, kernels.embedding_bag, table, indices, np.array([0, 2, 2], np.int64))


def attention(fence):
    for tokens, keys in ((1, 1), (5, 21)):
        q, k = floats(2, tokens, 3 * 7), floats(2, keys, 3 * 7)

        def call(q, k, v, mask, **out):
            return kernels.attention(q, k, v, 3, mask, **out)

        same(fence, call, q, k, k, floats(2, keys))


CASES = {
    attention: {"attention"},
    lookups: {"embedding", "embedding_bag"},
    rows: {"softmax", "layer_norm", "add", "multiply", "apply_activation"},
    depthwise: {"prepare_depthwise", "prepare_depthwise_int8"},
    other_convolutions: {"prepare_winograd", "prepare_conv2d_transposed"},
    dense: {"dense"},
    prepare_dense: {"prepare_dense"},
    prepare_dense_int8: {"prepare_dense_int8"},
    prepare_conv2d: {"prepare_conv2d"},
    prepare_conv2d_int8: {"prepare_conv2d_int8"},
    image_input: {"ImageInput"},
    stack: {"stack"},
    detect: {"detect"},
    suppress: {"suppress"},
    softmax_top_k: {"softmax_top_k"},
    gather: {"gather"},
    scatter: {"scatter"},
    changes_of_layout: {
        *("to_channels_last", "to_channels_first"),
        *("quantize_to_channels_last", "dequantize_to_channels_first"),
    },
    blocks: {"to_blocked", "from_blocked"},
    transpose: {"transpose"},
    pools: {"max_pool", "average_pool", "global_average_pool"},
    numbers: {"quantize", "dequantize", "add_quantized", "look_up"},
    numbers_along_axes: {"quantize", "dequantize"},
}
"""Each case and the public operators that it covers."""


def tell(*words):
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


def operators(level, cache, *models):
    configure(level=level, cache=cache, threads=2)
    for side in SIDES:
        fence = Fence(side)
        for case in CASES:
            tell(level, side, case.__name__)
            case(fence)
            fence.check()
        for model in models:
            tell(level, side, "plan", model)
            plan(fence, model)


def plan(fence, model):
    """All that a plan allocates lies at the fence: its arena, its packed weights, its biases."""
    from adlik_kernels.operators import packing
    from adlik_kernels.plans import plan as plans

    x = floats(2, *kernels.load_plan(model).input_shape)
    want = kernels.load_plan(model)(x)
    anywhere = packing.aligned_empty
    for module in (packing, plans):
        module.aligned_empty = lambda shape, dtype: fence.empty(np.atleast_1d(shape), dtype)
    try:
        got = kernels.load_plan(model)(fence.copy(x))
    finally:
        for module in (packing, plans):
            module.aligned_empty = anywhere
    np.testing.assert_array_equal(got, want)
    fence.check()


def toy(cache, kind, first, last):
    """Sums or fills places of an array of 37 floats; some of them may not be its own."""
    from adlik_kernels.codegen.build import load
    from adlik_kernels.codegen.emit import F32, Emitter, ir, kernel_function
    from adlik_kernels.machine.target import host
    from adlik_kernels.operators.operands import address

    configure(cache=cache)
    module = ir.Module("toy")
    e = Emitter(kernel_function(module, "kernel"))
    x, total = (e.argument(e.function.args[2], place) for place in (0, 1))
    with e.loop(int(first), int(last)) as number:
        at = e.at(x, e.mul(number, 4))
        if kind == "reads":
            e.store(e.builder.fadd(e.load(at, F32, 4), e.load(total, F32, 4)), total, 4)
        else:
            e.store(ir.Constant(F32, 1.0), at, 4)
    e.builder.ret_void()
    code = load("toy", (kind, first, last), lambda: module, host()).address
    run = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_char_p)(code)
    for side in SIDES:
        fence, result = Fence(side), np.zeros(1, np.float32)
        run(0, 1, struct.pack("2q", address(fence.copy(floats(37))), address(result)))
        fence.check()


def names():
    tell(*sorted(set().union(*CASES.values())))


if __name__ == "__main__":
    {"operators": operators, "toy": toy, "names": names}[sys.argv[1]](*sys.argv[2:])
