"""Workloads by the name of their group: those that are benchmarked and tuned without a model."""

from __future__ import annotations

from adlik_kernels.schedules.db import workload_of
from adlik_kernels.workload import Conv2d, Dense, Workload

PRODUCTS = (
    *((1, 1000, 2048), (8, 1000, 2048), (64, 1024, 1024), (512, 512, 512), (1024, 1024, 1024)),
    *((3136, 64, 64), (3136, 256, 64), (3136, 64, 256), (784, 512, 128), (784, 128, 512)),
    *((196, 1024, 256), (196, 256, 1024), (49, 2048, 512), (49, 512, 2048)),
    *((3136, 64, 576), (784, 128, 1152), (196, 256, 2304), (49, 512, 4608)),
)
"""Rows, columns, depth of ResNet-50's convolutions as products, and of a few plain layers."""

PICTURES = (
    *((224, 3, 64, 7, 2), (56, 64, 64, 1, 1), (56, 64, 64, 3, 1), (56, 64, 256, 1, 1)),
    *((56, 256, 64, 1, 1), (56, 128, 128, 3, 2), (28, 512, 128, 1, 1), (28, 128, 128, 3, 1)),
    *((28, 128, 512, 1, 1), (56, 256, 512, 1, 2), (28, 256, 256, 3, 2), (14, 1024, 256, 1, 1)),
    *((14, 256, 256, 3, 1), (14, 256, 1024, 1, 1), (28, 512, 1024, 1, 2), (14, 512, 512, 3, 2)),
    *((7, 2048, 512, 1, 1), (7, 512, 512, 3, 1), (7, 512, 2048, 1, 1)),
)
"""ResNet-50's layers: height and width, channels, filters, window, stride."""

POINTS = (
    *((112, 32, 16), (112, 16, 96), (56, 96, 24), (56, 24, 144), (56, 144, 24), (28, 144, 32)),
    *((28, 32, 192), (28, 192, 32), (14, 192, 64), (14, 64, 384), (14, 384, 64), (14, 384, 96)),
    *((14, 96, 576), (14, 576, 96), (7, 576, 160), (7, 160, 960), (7, 960, 160), (7, 960, 320)),
    (7, 320, 1280),
)
"""MobileNetV2's pointwise layers: height and width, channels, filters."""

ENCODER = tuple(
    (rows, *sizes) for rows in (16, 128) for sizes in ((384, 384), (1536, 384), (384, 1536))
)
"""Rows, columns, depth of MiniLM's layers, for a short and for a long text."""

PERCEPTRON = tuple(
    (rows, *sizes) for rows in (1, 8, 32) for sizes in ((512, 256), (512, 512), (128, 512))
)
"""The same of a small multilayer perceptron."""


def _convolution(sizes: tuple[int, int, int, int, int], dtype: str = "fp32") -> Conv2d:
    size, channels, filters, window, stride = sizes
    return Conv2d(
        height=size,
        width=size,
        channels=channels,
        filters=filters,
        kernel=(window, window),
        stride=(stride, stride),
        padding=(window // 2, window // 2),
        dtype=dtype,
    )


GROUPS: dict[str, tuple[Workload, ...]] = {
    "dense": tuple(Dense(*sizes) for sizes in PRODUCTS),
    "conv": tuple(_convolution(sizes) for sizes in PICTURES),
    "conv-int8": tuple(_convolution(sizes, "int8") for sizes in PICTURES[1:]),
    "points": tuple(_convolution((*sizes, 1, 1)) for sizes in POINTS),
    "points-int8": tuple(_convolution((*sizes, 1, 1), "int8") for sizes in POINTS),
    "encoder": tuple(Dense(*sizes) for sizes in ENCODER),
    "perceptron": tuple(Dense(*sizes) for sizes in PERCEPTRON),
    "int8": tuple(Dense(*sizes, dtype="int8") for sizes in PRODUCTS),
    "bf16": tuple(Dense(*sizes, dtype="bf16") for sizes in PRODUCTS),
}
"""The workloads of each group."""


def workloads_of(subjects: list[str]) -> list[Workload]:
    """Returns the workloads that groups and keys name, each once.

    Args:
        subjects: Names of `GROUPS`, or keys such as "dense-fp32-64x1024x1024".

    Raises:
        InvalidRecord: One names neither.
    """
    found = [w for name in subjects for w in GROUPS.get(name) or (workload_of(name),)]
    return list(dict.fromkeys(found))
