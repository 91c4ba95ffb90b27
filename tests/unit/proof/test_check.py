"""What is the reference passes; what differs from it in one way is found, and named."""

from __future__ import annotations

import numpy as np
import pytest
from adlik_common.errors import EngineFailed

from tests.unit.proof.models import I64, NODE, TEXT, F, mlp, model, normal


def last_row(_inputs, outputs):
    y = outputs["y"].copy()
    y[-1:] = y[-1:] * 1.5 + 0.01
    return {"y": y}


def from_third_row(_inputs, outputs):
    y = outputs["y"].copy()
    y[2:] += 0.01
    return {"y": y}


def scaled(_inputs, outputs):
    return {"y": outputs["y"] * np.float32(1.05)}


def column(_inputs, outputs):
    y = outputs["y"].copy()
    y[:, 3] = 0
    return {"y": y}


def rarely(inputs, outputs):
    y = outputs["y"].copy()
    y[inputs["x"][:, 0] > 2.2] = np.nan
    return {"y": y}


def in_company(inputs, outputs):
    return {"y": outputs["y"] + np.float32(0.02) * (len(inputs["x"]) > 1)}


def coarse(_inputs, outputs):
    bits = outputs["y"].view(np.uint32) & np.uint32(0xFFFF0000)  # what bfloat16 keeps
    return {"y": bits.view(np.float32)}


def doubled(_inputs, outputs):
    return {"y": outputs["y"].astype(np.float64)}


def without_rows(_inputs, outputs):
    return {"y": outputs["y"].sum(axis=0)}


def fails(inputs, _outputs):
    if len(inputs["x"]) > 3:
        raise EngineFailed("too many rows")
    return _outputs


WRONG = [
    last_row, from_third_row, scaled, column, rarely, in_company, coarse, doubled, without_rows,
    fails,
]  # fmt: skip


@pytest.mark.parametrize("change", WRONG, ids=lambda change: change.__name__)
@pytest.mark.parametrize("last", ["Softmax", "Tanh", "Identity"])
def test_a_wrong_variant_is_found(findings_of, change, last):
    found = findings_of(mlp(last), change)
    assert found.faults
    assert "in place of" in found.faults[0].text or "run" in found.faults[0].text


def test_the_model_itself_passes_and_its_rows_are_independent(findings_of):
    found = findings_of(mlp())
    assert not found.faults
    assert found.independent
    assert found.used < 1
    assert found.deferred == []


def test_another_order_of_summing_is_no_fault(findings_of):
    def reordered(inputs, outputs):
        y = outputs["y"].astype(np.float64)
        return {"y": (y * (1 + 1e-7 * np.cos(np.arange(10)))).astype(np.float32)}

    assert not findings_of(mlp(), reordered).faults


@pytest.mark.parametrize("offset", [0.0, 4.0, 1e4])
def test_an_output_that_hardly_moves_is_held_to_its_own_noise(findings_of, offset):
    """y = offset + 0.001 x w: a cosine would call anything near the offset the same."""
    weights = {"w": normal(8, 1, scale=1e-3), "b": np.full(1, offset, np.float32)}
    made = model(
        [NODE("Gemm", ["x", "w", "b"], ["y"])], [("x", F, ["n", 8])], [("y", F, ["n", 1])], weights
    )

    def flat(_inputs, outputs):
        return {"y": np.full_like(outputs["y"], offset)}

    assert not findings_of(made).faults
    # 0.001 is one unit in the last place of 1e4: there is hardly anything to tell apart there.
    if offset < 1e3:
        assert findings_of(made, flat).faults


def test_a_small_output_is_not_hidden_by_a_large_one(findings_of):
    made = model(
        [NODE("MatMul", ["x", "w"], ["large"]), NODE("MatMul", ["x", "v"], ["small"])],
        [("x", F, ["n", 8])],
        [("large", F, ["n", 4]), ("small", F, ["n", 3])],
        {"w": normal(8, 4, scale=1e4), "v": normal(8, 3, scale=1e-4)},
    )

    def zeroed(_inputs, outputs):
        return {**outputs, "small": np.zeros_like(outputs["small"])}

    (fault,) = findings_of(made, zeroed).faults
    assert fault.output == "small"


WHOLE = model([NODE("Neg", ["x"], ["y"])], [("x", I64, ["n", 3])], [("y", I64, ["n", 3])])


def test_whole_numbers_are_equal_or_wrong(findings_of):
    def off_by_one(_inputs, outputs):
        y = outputs["y"].copy()
        y[-1:, -1] += 1
        return {"y": y}

    assert "differ" in findings_of(WHOLE, off_by_one).faults[0].text


def test_sixty_four_bits_cut_to_thirty_two_are_told_apart(findings_of):
    """Requests with such numbers can be told by serving: the pushed model answers them."""

    def cut(_inputs, outputs):
        return {"y": outputs["y"].astype(np.int32).astype(np.int64)}

    found = findings_of(WHOLE, cut)
    assert (found.faults, found.deferred) == ([], ["wide"])


def test_sixty_four_bits_that_only_the_inside_needs_are_no_request_to_tell(findings_of):
    made = model(
        [NODE("Mul", ["x", "k"], ["big"]), NODE("Div", ["big", "d"], ["y"])],
        [("x", I64, ["n", 3])],
        [("y", I64, ["n", 3])],
        {"k": np.int64(1_000_003), "d": np.int64(7)},
    )

    def cut(inputs, _outputs):
        big = (inputs["x"] * 1_000_003).astype(np.int32)
        return {"y": np.trunc(big / 7).astype(np.int64)}

    assert findings_of(made, cut).faults


def test_doubles_computed_in_floats_are_a_loss(findings_of):
    made = model(
        [NODE("MatMul", ["x", "w"], ["y"])], [("x", 11, ["n", 8])], [("y", 11, ["n", 4])],
        {"w": normal(8, 4).astype(np.float64)},
    )  # fmt: skip

    def cut(_inputs, outputs):
        return {"y": outputs["y"].astype(np.float32).astype(np.float64)}

    assert not findings_of(made).faults
    assert findings_of(made, cut).faults


def test_texts_differ_where_they_differ(findings_of):
    nodes = [
        NODE(
            "LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml",
            keys_strings=["a", "ß"], values_strings=["eins", "zwei"], default_string="?",
        )
    ]  # fmt: skip
    made = model(nodes, [("x", TEXT, ["n", 2])], [("y", TEXT, ["n", 2])])

    def without_umlauts(inputs, outputs):
        y = outputs["y"].copy()
        y[inputs["x"] == "ß"] = "?"
        return {"y": y}

    assert not findings_of(made).faults
    assert "'zwei'" in findings_of(made, without_umlauts).faults[0].text


def chooser(operator, before=()):
    """Which of six sums is the largest."""
    nodes = [
        NODE("MatMul", ["x", "w"], ["s"]),
        *before,
        NODE("TopK", ["t" if before else "s", "k"], ["v", "i"])
        if operator == "TopK"
        else NODE(operator, ["t" if before else "s"], ["i"], axis=1, keepdims=0),
    ]
    dims = ["n", 2] if operator == "TopK" else ["n"]
    # Two columns are equal: their scores tie but for rounding.
    w = normal(8, 6)
    w[:, 4] = w[:, 1]
    weights = {"w": w, "k": np.array([2])}
    return model(nodes, [("x", F, ["n", 8])], [("i", I64, dims)], weights)


@pytest.mark.parametrize("operator", ["ArgMax", "ArgMin", "TopK"])
def test_an_index_may_fall_either_way_between_equal_scores_and_it_is_said(findings_of, operator):
    def other_twin(_inputs, outputs):
        i = outputs["i"].copy()
        twin = {1: 4, 4: 1}
        if i.ndim == 1:
            return {"i": np.array([twin.get(int(n), int(n)) for n in i])}
        both = (i == 1).any(axis=1) & (i == 4).any(axis=1)
        for row in np.flatnonzero(~both):
            i[row] = [twin.get(int(n), int(n)) for n in i[row]]
        return {"i": i}

    def next_one(_inputs, outputs):
        return {"i": (outputs["i"] + 1) % 6}

    made = chooser(operator)
    found = findings_of(made, other_twin)
    assert (found.faults, found.ties) == ([], ["i"])
    assert findings_of(made, next_one).faults


def test_scores_without_noise_leave_nothing_to_chance(findings_of):
    """Rounded scores tie exactly: the standard says that the first index wins."""
    made = chooser("ArgMax", before=[NODE("Round", ["s"], ["t"])])

    def last_wins(inputs, outputs):
        rounded = np.round(inputs["x"] @ WEIGHTS)
        return {"i": 5 - rounded[:, ::-1].argmax(axis=1)}

    WEIGHTS = normal(8, 6)  # noqa: N806
    WEIGHTS[:, 4] = WEIGHTS[:, 1]
    assert findings_of(made, last_wins).faults


def test_nan_that_is_dropped_is_told_apart(findings_of):
    def dropped(inputs, outputs):
        clean = np.nan_to_num(inputs["x"]).sum(axis=1, keepdims=True) * 0
        return {"y": np.nan_to_num(outputs["y"]) + clean}

    found = findings_of(mlp(), dropped)
    assert (found.faults, found.deferred) == ([], ["nonfinite"])


class Stale:
    """An engine that gives its last answer again for inputs of the same shape."""

    def __init__(self):
        self.last = {}

    def __call__(self, inputs, outputs):
        shape = inputs["x"].shape
        found, self.last[shape] = self.last.get(shape, outputs), outputs
        return found


@pytest.mark.parametrize("is_exact", [True, False])
def test_an_answer_of_the_run_before_is_found(findings_of, is_exact):
    found = findings_of(mlp("Identity"), Stale(), is_exact=is_exact)
    assert found.faults or found.figures[0].r2 < 0.9


def test_what_an_empty_request_leaves_behind_is_found(findings_of):
    class Poisoned:
        empty = False

        def __call__(self, inputs, outputs):
            self.empty |= not inputs["x"].size
            return {"y": outputs["y"] + np.float32(self.empty) * outputs["y"]}

    assert findings_of(mlp(), Poisoned()).faults


@pytest.mark.parametrize("is_exact", [True, False])
def test_a_lower_precision_must_not_look_at_its_company_either(findings_of, is_exact):
    def shared_scale(_inputs, outputs):
        y = outputs["y"]
        scale = np.abs(y).max(initial=1e-3) / 3
        return {"y": np.round(y / scale) * scale}

    found = findings_of(mlp("Identity"), shared_scale, is_exact=is_exact)
    assert found.faults


def steps():
    """Levels of eight bits on the way, as in a quantized model."""
    nodes = [
        NODE("MatMul", ["x", "w"], ["h"]),
        NODE("QuantizeLinear", ["h", "scale", "zero"], ["q"]),
        NODE("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        NODE("MatMul", ["d", "v"], ["y"]),
    ]
    weights = {"w": normal(16, 64), "v": normal(64, 8), "scale": np.float32(0.1)}
    inputs, outputs = [("x", F, ["n", 16])], [("y", F, ["n", 8])]
    return model(nodes, inputs, outputs, {**weights, "zero": np.uint8(128)})


def test_a_few_roundings_may_fall_the_other_way_and_many_are_another_model(findings_of):
    v = normal(64, 8)

    def flips(share):
        def change(inputs, outputs):
            y = outputs["y"].copy()
            random = np.random.default_rng(len(y))
            for row in np.flatnonzero(random.random(len(y)) < share):
                y[row] += np.float32(0.1) * v[random.integers(64)]
            return {"y": y}

        return change

    assert not findings_of(steps(), flips(0)).faults
    assert findings_of(steps(), flips(0.5)).faults


def test_few_levels_that_leave_the_model_may_be_the_next_one(findings_of):
    made = steps()
    made.graph.output[0].name = "q"
    made.graph.output[0].type.tensor_type.elem_type = 2
    made.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 64
    del made.graph.node[2:]

    def moved(by, rows):
        def change(_inputs, outputs):
            q = outputs["q"].copy()
            if len(q) > 100:
                q[:rows, 0] ^= np.uint8(by)  # of an even level the next one
            return {"q": q}

        return change

    assert not findings_of(made, moved(1, 1)).faults
    assert findings_of(made, moved(1, 40)).faults
    assert findings_of(made, moved(8, 1)).faults


def test_what_an_engine_can_not_do_without_rows_is_told_apart(findings_of):
    def needs_rows(inputs, outputs):
        if not inputs["x"].size:
            raise EngineFailed("no rows")
        return outputs

    assert findings_of(mlp(), needs_rows).deferred == ["empty"]


def test_wrong_on_real_samples_alone_is_found(findings_of):
    samples = {"x": 100 + normal(40, 16)}

    def saturates(inputs, outputs):
        return {"y": np.where(inputs["x"][:, :1] > 90, outputs["y"] * 0.9, outputs["y"])}

    assert not findings_of(mlp("Identity"), **samples).faults
    fault = findings_of(mlp("Identity"), saturates, **samples).faults[0]
    assert fault.text.startswith("sample ")
