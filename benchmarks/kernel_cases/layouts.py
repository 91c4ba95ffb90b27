"""What lies between products: layouts, pooling, quantization, beside torch and numpy.

Every contender writes into memory that it has been given, where its library lets it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.kernel_cases.timing import Case

PICTURES = ((1, 3, 224), (8, 3, 224), (1, 64, 56), (8, 64, 56), (1, 256, 14), (1, 2048, 7))
"""Pictures, channels and side of what changes its layout."""

ORDERS = (
    ((1024, 1024), (1, 0)),
    ((768, 3072), (1, 0)),
    ((1, 197, 12, 64), (0, 2, 3, 1)),
    ((8, 12, 128, 64), (0, 1, 3, 2)),
)
"""Shapes and orders of axes."""

POOLS = (
    ((1, 112, 112, 64), 3, 2, 1),
    ((8, 112, 112, 64), 3, 2, 1),
    ((1, 56, 56, 64), 2, 2, 0),
    ((1, 20, 20, 256), 5, 1, 2),
    ((1, 14, 14, 512), 3, 1, 1),
)
"""Shapes, windows, strides and padding: of ResNet, VGG, YOLO's SPPF, Inception."""


def layout_cases(_threads: int) -> Iterator[Case]:
    import numpy as np
    from adlik_kernels import to_blocked, to_channels_first, to_channels_last, transpose

    rng = np.random.default_rng(0)
    for pictures, channels, side in PICTURES:
        for dtype in (np.float32, np.uint8):
            first = rng.integers(0, 256, (pictures, channels, side, side)).astype(dtype)
            last = np.ascontiguousarray(first.transpose(0, 2, 3, 1))
            name = f"{pictures}x{channels}x{side}x{side} {np.dtype(dtype).name}"
            out = np.empty_like(last)
            calls = {"adlik": lambda x=first, out=out: to_channels_last(x, out=out)}
            yield Case(f"{name} last", 0, "", calls | copies(first, (0, 2, 3, 1)))
            out = np.empty_like(first)
            calls = {"adlik": lambda x=last, out=out: to_channels_first(x, out=out)}
            yield Case(f"{name} first", 0, "", calls | copies(last, (0, 3, 1, 2)))
    for shape, axes in ORDERS:
        x = rng.standard_normal(shape).astype(np.float32)
        out = np.ascontiguousarray(x.transpose(axes))
        calls = {"adlik": lambda x=x, axes=axes, out=out: transpose(x, axes, out=out)}
        yield Case(f"{shape} {axes}", 0, "", calls | copies(x, axes))
    for shape in ((1, 56, 56, 64), (1, 14, 14, 256)):
        x = rng.standard_normal(shape).astype(np.float32)
        parts = x.reshape(*shape[:3], shape[3] // 16, 16)
        out = to_blocked(x)
        calls = {"adlik": lambda x=x, out=out: to_blocked(x, out=out)}
        yield Case(f"{shape} blocked", 0, "", calls | copies(parts, (0, 3, 1, 2, 4)))


def copies(x, axes) -> dict[str, Callable[[], object]]:
    """The copies of numpy and torch into an array whose axes are in another order."""
    import numpy as np

    out = np.ascontiguousarray(x.transpose(axes))
    found = {"numpy": lambda: np.copyto(out, x.transpose(axes))}
    try:
        import torch
    except ImportError:
        return found
    given, made = torch.from_numpy(x), torch.from_numpy(out.copy())
    return found | {"torch": lambda: made.copy_(given.permute(axes))}


def pooling_cases(_threads: int) -> Iterator[Case]:
    import numpy as np
    from adlik_kernels import average_pool, global_average_pool, max_pool

    rng = np.random.default_rng(0)
    for shape, window, stride, padding in POOLS:
        for dtype in (np.float32, np.uint8):
            x = rng.integers(0, 256, shape).astype(dtype)
            sides = {"stride": (stride, stride), "padding": (padding, padding)}
            for name, pool in (("max", max_pool), ("mean", average_pool)):
                out = pool(x, (window, window), **sides)

                def call(x=x, pool=pool, out=out, window=window, sides=sides):
                    return pool(x, (window, window), **sides, out=out)

                peers = torch_pools(x, name, window, stride, padding)
                text = f"{name} {shape} {window}/{stride} {np.dtype(dtype).name}"
                yield Case(text, 0, "", {"adlik": call} | peers)
    for shape in ((1, 7, 7, 2048), (8, 7, 7, 512), (1, 56, 56, 64)):
        x = rng.standard_normal(shape).astype(np.float32)
        calls = {"adlik": lambda x=x: global_average_pool(x)}
        yield Case(f"global {shape}", 0, "", calls | torch_global(x))


def torch_pools(x, name, window, stride, padding) -> dict[str, Callable[[], object]]:
    try:
        import torch
    except ImportError:
        return {}
    import numpy as np

    functions = torch.nn.functional
    given = torch.from_numpy(x)
    if x.dtype == np.uint8:
        given = torch._make_per_tensor_quantized_tensor(given, 0.1, 0)  # noqa: SLF001 # no other way
    given = given.permute(0, 3, 1, 2)
    if name == "max":
        return {"torch": lambda: functions.max_pool2d(given, window, stride, padding)}
    rest = {"count_include_pad": False}
    return {"torch": lambda: functions.avg_pool2d(given, window, stride, padding, **rest)}


def torch_global(x) -> dict[str, Callable[[], object]]:
    try:
        import torch
    except ImportError:
        return {}
    given = torch.from_numpy(x).permute(0, 3, 1, 2)
    return {"torch": lambda: torch.nn.functional.adaptive_avg_pool2d(given, 1)}


def quantize_cases(_threads: int) -> Iterator[Case]:
    import numpy as np
    from adlik_kernels import (
        Levels,
        add_quantized,
        dequantize,
        look_up,
        quantize,
        quantize_to_channels_last,
    )

    rng, one = np.random.default_rng(0), Levels(0.05, 120)
    for shape in ((1, 3, 224, 224), (1, 64, 56, 56), (8, 64, 112, 112)):
        x = rng.standard_normal(shape).astype(np.float32)
        q, other = quantize(x, 0.05, 120), quantize(x, 0.04, 100)
        back, out, last = (
            np.empty_like(x),
            np.empty_like(q),
            quantize_to_channels_last(x, 0.05, 120),
        )
        table = rng.integers(0, 256, 256).astype(np.uint8)
        three = one, Levels(0.04, 100), one
        calls = {
            "quantize": lambda x=x, out=out: quantize(x, 0.05, 120, out=out),
            "dequantize": lambda q=q, back=back: dequantize(q, 0.05, 120, out=back),
            "quantize last": lambda x=x, last=last: quantize_to_channels_last(
                x, 0.05, 120, out=last
            ),
            "sum": lambda q=q, other=other, three=three, out=out: add_quantized(
                q, other, three, out=out
            ),
            "table": lambda q=q, table=table, out=out: look_up(q, table, out=out),
        }
        peers = torch_levels(x)
        peers["table"] = {"numpy": lambda q=q, table=table: table[q]}
        for name, call in calls.items():
            yield Case(f"{name} {shape}", 0, "", {"adlik": call} | peers.get(name, {}))


def torch_levels(x) -> dict[str, dict[str, Callable[[], object]]]:
    """The calls of torch by what they do."""
    try:
        import torch
    except ImportError:
        return {}
    given, kind = torch.from_numpy(x), torch.quint8
    with torch.no_grad():
        q, other = (
            torch.quantize_per_tensor(given, scale, zero, kind)
            for scale, zero in ((0.05, 120), (0.04, 100))
        )

    def last():
        made = torch.quantize_per_tensor(given, 0.05, 120, kind)
        return made.contiguous(memory_format=torch.channels_last)

    return {
        "quantize": {"torch": lambda: torch.quantize_per_tensor(given, 0.05, 120, kind)},
        "dequantize": {"torch": q.dequantize},
        "quantize last": {"torch": last},
        "sum": {"torch": lambda: torch.ops.quantized.add(q, other, 0.05, 120)},
    }
