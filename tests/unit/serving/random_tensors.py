"""Random tensors of every datatype, and their raw bytes spelt out independently of the code."""

import struct

import numpy as np
from adlik_common.tensors import DATATYPES
from hypothesis import strategies as st


def expected_raw(array):
    if array.dtype == np.object_:
        elements = [item if isinstance(item, bytes) else item.encode() for item in array.flat]
        return b"".join(struct.pack("<I", len(item)) + item for item in elements)
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


@st.composite
def arrays(draw, datatypes=tuple(DATATYPES)):
    datatype = draw(st.sampled_from(datatypes))
    shape = tuple(draw(st.lists(st.integers(1, 4), max_size=4)))
    count = int(np.prod(shape))
    dtype = DATATYPES[datatype]
    if datatype == "BYTES":
        array = np.empty(count, np.object_)
        array[:] = draw(st.lists(st.text(max_size=9), min_size=count, max_size=count))
    elif datatype == "BOOL":
        array = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype)
    else:
        size = count * dtype.itemsize
        array = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), dtype)
    return datatype, array.reshape(shape)
