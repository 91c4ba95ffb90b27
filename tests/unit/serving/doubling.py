"""A model that doubles its input; it notes its runs, and can be held up or made to fail."""

import threading

from adlik_common.errors import EngineFailed
from adlik_common.tensors import TensorSpec


class Doubler:
    inputs = (TensorSpec("x", "FP32", (-1, -1)),)
    outputs = (TensorSpec("y", "FP32", (-1, -1)),)

    def __init__(self):
        self.runs = []
        self.threads = set()
        self.go = threading.Event()
        self.go.set()
        self.poison = None
        self.closed = False

    def run(self, inputs, outputs=()):
        self.threads.add(threading.get_ident())
        assert self.go.wait(10)
        x = inputs["x"]
        self.runs.append(x)
        if self.poison is not None and (x == self.poison).any():
            raise EngineFailed("poisoned")
        return {"y": x * 2}

    def close(self):
        self.closed = True
