"""The warm-up: what it runs, and whether it sees which models may be batched."""

import numpy as np
import pytest
from adlik_common.errors import EngineFailed
from adlik_common.tensors import TensorSpec
from adlik_serving.warmup import FREE_SIZES, MAX_RUN_NS, warm_up
from doubling import Doubler


class Model(Doubler):
    """A model of any function of x; `cost` says what a run of so many rows takes in ns."""

    def __init__(
        self, function, inputs=(-1, 3), outputs=(-1, 3), datatype="FP32", cost=lambda rows: 1000
    ):
        super().__init__()
        self.now, self.cost = 0, cost
        self.inputs = (TensorSpec("x", datatype, inputs),)
        self.outputs = (TensorSpec("y", datatype, outputs),)
        self.function = function

    def run(self, inputs, outputs=()):
        self.runs.append(inputs["x"])
        self.now += self.cost(len(inputs["x"]))
        return {"y": self.function(inputs["x"])}


def warmed_up(model, max_rows):
    return warm_up(model, max_rows, clock=lambda: model.now)


def test_every_bucket_is_run_before_the_first_request():
    model = Model(lambda x: x + 1)
    warm = warmed_up(model, 24)
    assert (warm.max_rows, warm.run_ns) == (24, 1000)
    assert {len(run) for run in model.runs} == {1, 2, 3, 4, 8, 16, 24}  # three: the proof's


@pytest.mark.parametrize("max_rows", [1, 2])
def test_small_limits_are_kept(max_rows):
    assert warmed_up(Model(lambda x: x), max_rows).max_rows == max_rows


@pytest.mark.parametrize(
    "model",
    [
        Model(lambda x: np.cumsum(x, axis=0)),  # the first dimension is time
        Model(lambda x: x / np.abs(x).max(initial=1e-9)),  # rows are scaled together
        Model(lambda x: x[:1]),  # found objects
        Model(lambda x: x.sum(axis=0), outputs=(-1,)),
        Model(lambda x: x, inputs=(1, 3)),
        Model(lambda x: x, outputs=(1, 3)),
        Model(lambda x: x.sum(), outputs=()),
        Model(lambda x: x - 0.02 * x.mean(axis=0)),  # two hundredths of what all have in common
        Model(lambda x: x > x.mean(axis=0)),
        Model(lambda x: x.argsort(axis=0)),
        Model(lambda x: np.where(len(x) > 2, x * np.float32(1.01), x)),  # from the third row on
    ],
)
def test_what_answers_differently_in_a_batch_is_not_batched(model):
    assert warmed_up(model, 8).max_rows == 0


@pytest.mark.parametrize(
    ("cost", "largest"),
    [
        (lambda rows: 1000 + rows, 32),
        (lambda rows: 1000 * rows, 1),  # one row fills the machine
        (lambda rows: 1000 * rows if rows > 1 else 1100, 2),
        (lambda rows: 100 + 1000 * rows + (5000 if rows > 8 else 0), 4),
        (lambda rows: 3000 + 100 * rows + (90_000 if rows > 8 else 0), 8),
        (lambda rows: MAX_RUN_NS // 10 + rows * MAX_RUN_NS // 8, 8),  # and the batch takes long
    ],
)
def test_batches_grow_as_far_as_rows_become_faster(cost, largest):
    assert warmed_up(Model(lambda x: x, cost=cost), 32).max_rows == largest


def test_a_lower_precision_may_round_otherwise_in_company():
    def coarse(x):
        return x + 0.002 * np.sin(50 * x) * len(x)

    model = Model(coarse)
    assert warm_up(model, 8, clock=lambda: model.now).max_rows == 0
    assert warm_up(model, 8, clock=lambda: model.now, is_exact=False).max_rows == 8


def test_the_configuration_may_forbid_batches():
    model = Model(lambda x: x)
    assert warmed_up(model, 0).max_rows == 0
    assert {len(run) for run in model.runs} == {1}


def test_open_dimensions_get_the_first_size_that_runs():
    def needs_an_image(x):
        if x.shape[1] < FREE_SIZES[1]:
            raise EngineFailed("too small")
        return x

    model = Model(needs_an_image, inputs=(-1, -1), outputs=(-1, -1))
    assert warmed_up(model, 2).max_rows == 2
    assert model.runs[-1].shape == (2, FREE_SIZES[1])


def test_batches_end_where_the_engine_does():
    def small_only(x):
        if len(x) > 4:
            raise EngineFailed("out of memory")
        return x

    assert warmed_up(Model(small_only), 32).max_rows == 4


def test_a_model_that_nothing_of_ours_runs_is_still_served():
    def never(x):
        raise EngineFailed("wants something else")

    warm = warmed_up(Model(never), 32)
    assert (warm.max_rows, warm.run_ns) == (0, MAX_RUN_NS)


def test_text_gets_empty_strings():
    model = Model(lambda x: x, datatype="BYTES")
    assert warmed_up(model, 2).max_rows == 2
    assert model.runs[-1].tolist() == [[""] * 3] * 2
