"""Datatypes of the protocol and the check of a tensor against its spec."""

import numpy as np
import pytest
from adlik_common.errors import InvalidTensor
from adlik_common.tensors import DATATYPES, TensorSpec, check_tensor, datatype_of
from hypothesis import given
from hypothesis import strategies as st

SHAPES = st.lists(st.integers(0, 3), max_size=4)


@pytest.mark.parametrize("name", DATATYPES)
def test_every_datatype_has_one_numpy_type_and_back(name):
    assert datatype_of(DATATYPES[name]) == name


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]", ">f4", "S3", "longdouble"])
def test_types_without_a_name_are_refused(dtype):
    with pytest.raises(InvalidTensor, match="no datatype"):
        datatype_of(dtype)


@given(SHAPES, st.data())
def test_a_shape_fits_where_each_size_is_the_models_or_free(shape, data):
    free = data.draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
    spec = TensorSpec(
        "x", "FP32", tuple(-1 if f else size for f, size in zip(free, shape, strict=True))
    )
    check_tensor(spec, "FP32", shape)


@given(SHAPES, SHAPES)
def test_any_other_shape_is_refused(wanted, shape):
    spec = TensorSpec("x", "FP32", tuple(wanted))
    if wanted == shape:
        check_tensor(spec, "FP32", shape)
    else:
        with pytest.raises(InvalidTensor, match="has shape"):
            check_tensor(spec, "FP32", shape)


def test_a_negative_size_fits_nothing_not_even_a_free_one():
    with pytest.raises(InvalidTensor):
        check_tensor(TensorSpec("x", "FP32", (-1,)), "FP32", [-1])


def test_another_datatype_is_refused_with_the_tensors_name():
    with pytest.raises(InvalidTensor) as caught:
        check_tensor(TensorSpec("pixels", "FP32", (1,)), datatype_of(np.int64), [1])
    assert caught.value.details == {"tensor": "pixels"}
    assert "FP32" in caught.value.cure
