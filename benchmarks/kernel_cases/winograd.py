"""3x3 convolutions with steps of 1: Winograd's method beside the direct one and the peers."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.kernel_cases.convolutions import openvino_conv, torch_conv
from benchmarks.kernel_cases.timing import Case

LAYERS = ((56, 64), (28, 128), (14, 256), (7, 512))
"""ResNet-50's: height and width, channels (as many filters)."""


def winograd_cases(threads: int) -> Iterator[Case]:
    """What `winograd_pays` chooses is `adlik`; every other way is a contender of its own."""
    import numpy as np
    from adlik_kernels import configuration, prepare_conv2d
    from adlik_kernels.operators.winograd import prepare_winograd, winograd_pays

    rng = np.random.default_rng(0)
    for size, channels in LAYERS:
        x = rng.standard_normal((1, size, size, channels), np.float32)
        w = rng.standard_normal((channels, channels, 3, 3), np.float32)
        ways = {
            0: prepare_conv2d(w, (size, size), padding=(1, 1)),
            2: prepare_winograd(w, (size, size), padding=(1, 1), results=2),
            4: prepare_winograd(w, (size, size), padding=(1, 1), results=4),
        }
        workload = ways[0].workload
        chosen = winograd_pays(workload, configuration.target(), threads)
        names = {0: "direct", 2: "F(2)", 4: "F(4)"}
        out = ways[0](x)
        calls = {
            "adlik" if m == chosen else f"ours, {names[m]}": (
                lambda way=way, x=x, out=out: way(x, out=out)
            )
            for m, way in ways.items()
        }
        calls |= torch_conv(x, w, (1, 1), (1, 1))
        calls |= openvino_conv(x, w, (1, 1), (1, 1), threads)
        name = f"{size},{channels} {names[chosen]}"
        yield Case(name, float(workload.operations), "fp32", calls)
