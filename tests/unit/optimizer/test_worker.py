"""The worker tries again what may yet succeed while attempts are left, else says what failed."""

from __future__ import annotations

import json
import math

import pytest
from adlik_common.bus import Delivery
from adlik_common.errors import CorruptArtifact, InvalidModel, Unavailable
from adlik_optimizer import worker as worker_module
from adlik_optimizer.settings import OptimizerSettings
from adlik_optimizer.worker import Optimizer
from adlik_proto.adlik.events.v1 import events_pb2
from adlik_proto.adlik.model.v1 import model_pb2

FIRST, LAST = Delivery(1, last=False), Delivery(5, last=True)
EVENT = events_pb2.ModelPushed(pushed=model_pb2.PushedModel(name="m", version=1))


class Surroundings:
    """A context, its bus and its store in one, whose recipes end in given errors."""

    def __init__(self, path):
        self.settings, self.bus, self.artifacts = OptimizerSettings(), self, self
        self.path = path
        self.failed = []
        self.passes = []

    async def fetch(self, _artifact):
        return self.path

    async def put_file(self, _path, media_type):
        return model_pb2.ArtifactRef(digest="sha256:0", media_type=media_type)

    async def publish(self, event):
        self.passes.append(event.optimized.passes)

    async def fail(self, pushed, stage, subject, error):
        self.failed.append((pushed.name, stage, subject, error.code))


def worker(surroundings, error):
    made = Optimizer(surroundings)

    async def run(*_):
        raise error

    made._run = run
    return made


@pytest.mark.parametrize("error", [Unavailable("no room"), CorruptArtifact("a bit is wrong")])
async def test_what_may_yet_succeed_is_tried_again_while_attempts_are_left(error, tmp_path):
    surroundings = Surroundings(tmp_path / "m.onnx")
    with pytest.raises(type(error)):
        await worker(surroundings, error).optimize(EVENT, FIRST)
    assert not surroundings.failed
    assert await worker(surroundings, error).optimize(EVENT, LAST) == []
    assert surroundings.failed == [("m", "optimizer", "clean", error.code)]


async def test_what_can_not_succeed_is_said_at_once(tmp_path):
    surroundings = Surroundings(tmp_path / "m.onnx")
    error = InvalidModel("no model")
    assert await worker(surroundings, error).optimize(EVENT, FIRST) == []
    assert surroundings.failed == [("m", "optimizer", "clean", "INVALID_MODEL")]


async def test_a_pass_whose_difference_is_infinite_is_reported_and_hurts_nothing(
    tmp_path, monkeypatch
):
    surroundings = Surroundings(tmp_path / "m.onnx")
    report = {
        "name": "bold", "modified": False, "summary": "undone", "max_abs_error": math.inf,
        "seconds": 0.1,
    }  # fmt: skip

    async def child(*_, **__):
        # As it comes from the child process.
        return json.loads(json.dumps({"passes": [report]}))

    monkeypatch.setattr(worker_module, "run_isolated", child)
    assert await Optimizer(surroundings).optimize(EVENT, FIRST) == ["clean", "int8"]
    assert [passes[0].max_abs_error for passes in surroundings.passes] == [math.inf] * 2
