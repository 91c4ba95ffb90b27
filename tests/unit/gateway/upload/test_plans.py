"""Plans: their JSON, the ranges of their limits, and names that services offer."""

import json
import math

import pytest
from adlik_common.errors import InvalidPlan
from adlik_common.tensors import TensorSpec
from adlik_gateway.upload.plans import MAX_JSON_BYTES, check_names, check_plan, parse_plan
from adlik_proto.adlik.control.v1 import control_pb2
from adlik_proto.adlik.model.v1 import model_pb2
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

REPLICAS = [
    control_pb2.Replica(service="optimizer", capabilities={"clean": ""}),
    control_pb2.Replica(service="optimizer", capabilities={"int8": "NNCF is not installed."}),
    control_pb2.Replica(
        service="compiler", capabilities={"onnxruntime-fp32": "", "tensorrt-fp16": "No GPU here."}
    ),
    control_pb2.Replica(service="gateway", capabilities={"door": ""}),
]
RETIRED = {"min_cosine": "min_r2", "min_top1_agreement": "min_expected_accuracy"}
LIMITS = sorted(set(model_pb2.Limits.DESCRIPTOR.fields_by_name) - {"outputs", *RETIRED})
OF_OUTPUTS = list(model_pb2.OutputLimits.DESCRIPTOR.fields_by_name)


@given(
    st.lists(st.text(max_size=5), max_size=3),
    st.dictionaries(st.sampled_from(LIMITS), st.floats(allow_nan=False, allow_infinity=False)),
)
def test_a_plan_comes_back_from_its_json(recipes, limits):
    plan = model_pb2.Plan(recipes=recipes, limits=limits)
    for by_field in (True, False):
        text = json_format.MessageToJson(plan, preserving_proto_field_name=by_field)
        assert parse_plan(text.encode()) == plan


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"null", b"\xff", b'{"recipe": []}', b'{"recipes": "clean"}',
        b'{"limits": {"min_r2": "near"}}', b'{"limits": {"min_r": 1}}',
        b'{"recipes": [1]}', b"[" * 10_000, b'{"a":' * 10_000,
    ],
)  # fmt: skip
def test_what_is_no_plan_is_refused_in_one_line(text):
    with pytest.raises(InvalidPlan) as caught:
        parse_plan(text)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_plan_or_refused(text):
    try:
        assert isinstance(parse_plan(text), model_pb2.Plan)
    except InvalidPlan:
        return
    assert isinstance(json.loads(text), dict)


def test_a_plan_that_is_too_long_is_not_parsed():
    with pytest.raises(InvalidPlan, match="more than"):
        parse_plan(b'{"recipes": ["' + b"a" * MAX_JSON_BYTES + b'"]}')


@pytest.mark.parametrize("field", LIMITS)
@pytest.mark.parametrize("value", [-0.01, 1e9, math.nan, math.inf])
def test_limits_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(InvalidPlan, match=field):
        check_plan(model_pb2.Plan(limits={field: value}), [])
    if field in OF_OUTPUTS:
        limits = model_pb2.Limits(outputs={"y": model_pb2.OutputLimits(**{field: value})})
        with pytest.raises(InvalidPlan, match=f"{field} of output 'y'"):
            check_plan(model_pb2.Plan(limits=limits), [])


def test_limits_in_range_are_taken():
    limits = {"min_r2": 1, "min_expected_accuracy": 0, "max_accuracy_drop": 100, "min_speedup": 2}
    of_output = {"y": model_pb2.OutputLimits(max_abs_error=3)}
    check_plan(model_pb2.Plan(limits=model_pb2.Limits(**limits, outputs=of_output)), [])


@pytest.mark.parametrize("field", RETIRED)
def test_a_retired_limit_is_refused_with_the_one_in_its_place(field):
    plan = parse_plan(json.dumps({"limits": {field: 0.9}}).encode())
    with pytest.raises(InvalidPlan, match=f"no limit {field} any more: use {RETIRED[field]}"):
        check_plan(plan, [])


INPUTS = (TensorSpec("x", "FP32", (-1, -1), ("batch", "seq")),)
OUTPUTS = (TensorSpec("y", "FP32", (-1,)),)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"sizes": {"sequence": 8}}, "sizes for .'sequence'.*Choose among .'batch', 'seq'"),
        ({"limits": {"outputs": {"z": {"min_r2": 1}}}}, "limits for .'z'.*Choose among .'y'"),
    ],
)
def test_a_plan_that_names_what_the_model_does_not_have_is_refused(plan, said):
    with pytest.raises(InvalidPlan, match=said):
        check_names(parse_plan(json.dumps(plan).encode()), INPUTS, OUTPUTS)


def test_a_plan_may_name_outputs_and_axes_of_the_model():
    plan = {"sizes": {"seq": 8}, "limits": {"outputs": {"y": {"min_r2": 1}}}}
    check_names(parse_plan(json.dumps(plan).encode()), INPUTS, OUTPUTS)


@pytest.mark.parametrize(
    ("plan", "said"),
    [({"sizes": {"seq": 0}}, "size of axis 'seq' is 0"), ({"batching": "on"}, "no batching 'on'")],
)
def test_sizes_and_batching_are_checked(plan, said):
    with pytest.raises(InvalidPlan, match=said):
        check_plan(parse_plan(json.dumps(plan).encode()), [])


@pytest.mark.parametrize(
    ("plan", "said", "cure"),
    [
        ({"recipes": ["clean", "magic"]}, "no recipe 'magic'", r"\['clean', 'int8'\]"),
        ({"targets": ["abacus"]}, "no target 'abacus'", "onnxruntime-fp32"),
        ({"targets": ["door"]}, "no target 'door'", "onnxruntime-fp32"),
        ({"targets": ["clean"]}, "no target 'clean'", "onnxruntime-fp32"),
        ({"targets": ["tensorrt-fp16"]}, "not available: No GPU here.", r"\['onnxruntime-fp32'\]"),
    ],
)
def test_names_that_nobody_offers_are_refused_with_those_that_are(plan, said, cure):
    with pytest.raises(InvalidPlan, match=said) as caught:
        check_plan(model_pb2.Plan(**plan), REPLICAS)
    assert caught.match(cure)


def test_what_one_of_several_replicas_can_do_is_offered():
    able = control_pb2.Replica(service="optimizer", capabilities={"int8": ""})
    for replicas in ([*REPLICAS, able], [able, *REPLICAS]):
        check_plan(model_pb2.Plan(recipes=["clean", "int8"]), replicas)


def test_with_nobody_there_to_ask_every_name_is_taken():
    check_plan(model_pb2.Plan(recipes=["clean"], targets=["x"]), [])
