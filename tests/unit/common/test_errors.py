"""The tree of errors: one code each, a status at every edge, and the same on the other side."""

import re
from http import HTTPStatus

import grpc
import pytest
from adlik_common import errors
from adlik_common.errors import AdlikError, Internal, NotFound, from_proto, to_proto
from adlik_proto.adlik.model.v1 import model_pb2
from hypothesis import given
from hypothesis import strategies as st

CLASSES = AdlikError.__subclasses__()


def test_codes_are_distinct_and_further_kinds_keep_their_parents_code():
    assert len({cls.code for cls in CLASSES}) == len(CLASSES) > 15
    assert all(sub.code == cls.code for cls in CLASSES for sub in cls.__subclasses__())


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_edge_knows_the_class(cls):
    assert grpc.StatusCode[cls.grpc_status] is not grpc.StatusCode.OK
    assert cls.http_status == 499 or HTTPStatus(cls.http_status) >= 400
    assert re.fullmatch(r"[A-Z][A-Z_]+", cls.code)
    assert cls("What was wrong.").cure, "a reader is told what to do"


@given(
    st.sampled_from(CLASSES),
    st.text(),
    st.text(min_size=1),
    st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text()),
)
def test_an_error_comes_back_as_the_same_error(cls, message, cure, details):
    details = {f"x_{name}": value for name, value in details.items()}
    error = cls(message, cure=cure, **details)
    said = model_pb2.Error.FromString(to_proto(error).SerializeToString())
    back = from_proto(said)
    assert type(back) is cls
    assert (back.message, back.cure, back.details) == (message, cure, details)
    assert said.retryable == back.retryable == cls.retryable


def test_what_is_no_error_of_ours_becomes_internal():
    said = to_proto(ZeroDivisionError("division by zero"))
    assert said.code == "INTERNAL"
    assert "ZeroDivisionError" in said.message
    assert not said.retryable


def test_a_code_of_a_newer_release_becomes_internal_with_its_words():
    error = from_proto(model_pb2.Error(code="NEWER", message="It is new.", cure="Update."))
    assert type(error) is Internal
    assert str(error) == "It is new. Update."


def test_details_are_text_for_programs():
    assert NotFound("x", version=3).details == {"version": "3"}


def test_the_tree_in_the_docstring_is_the_tree():
    rows = re.findall(r"[├└]── (\w+) +([A-Z_]+) +(\d+) +([A-Z_]+)(?: +(yes))?", errors.__doc__)
    written = {name: (code, int(http), rpc, yes == "yes") for name, code, http, rpc, yes in rows}
    real = {
        cls.__name__: (cls.code, cls.http_status, cls.grpc_status, cls.retryable) for cls in CLASSES
    }
    assert written == real
