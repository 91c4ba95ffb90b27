"""What the gateway reads of ONNX files, against onnx's own reading of the same files."""

import random

import numpy as np
import onnx
import pytest
from adlik_common.errors import InvalidModel, UnsafePath
from adlik_common.tensors import datatype_of
from adlik_common.wire import FIXED64, bytes_head, write_varint
from adlik_gateway.upload.onnx_file import MAX_GRAPH_DEPTH, read_onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

NAMES = st.text(min_size=1, max_size=8)
TYPES = st.sampled_from([
    TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8, TensorProto.BOOL, TensorProto.DOUBLE,
    TensorProto.FLOAT16, TensorProto.STRING, TensorProto.INT32, TensorProto.UINT64,
])  # fmt: skip
DIMS = st.lists(st.one_of(st.integers(1, 2**40), st.sampled_from(["N", "height", None])))
SAME_FILE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def saved(tmp_path, model):
    path = tmp_path / "m.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def read(tmp_path, model):
    return read_onnx(saved(tmp_path, model))


def tensor(name, kind=TensorProto.FLOAT, dims=(1,)):
    return helper.make_tensor_value_info(name, kind, dims)


def external(name, location, **more):
    made = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2])
    made.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        made.external_data.add(key=key, value=value)
    return made


def model_of(inputs=(), outputs=None, initializers=(), nodes=None):
    outputs = [tensor("y")] if outputs is None else outputs
    nodes = [helper.make_node("Identity", ["x"], ["y"])] if nodes is None else nodes
    return helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, initializers))


def seen(info):
    """Returns a tensor as onnx reads it, in the terms of the protocol."""
    kind = info.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    return info.name, datatype_of(dtype), shape


SIGNATURES = st.lists(
    st.tuples(NAMES, TYPES, DIMS), min_size=1, max_size=4, unique_by=lambda t: t[0]
)


@SAME_FILE
@given(SIGNATURES, SIGNATURES, st.data())
def test_a_signature_is_what_onnx_reads(tmp_path, inputs, outputs, data):
    weights = data.draw(st.sets(st.sampled_from([name for name, _, _ in inputs])))
    model = model_of(
        [tensor(*i) for i in inputs],
        [tensor(*o) for o in outputs],
        [numpy_helper.from_array(np.zeros(2, np.float32), name) for name in weights],
    )
    found = read(tmp_path, model)
    real = onnx.load(tmp_path / "m.onnx").graph
    assert [(t.name, t.datatype, t.shape) for t in found.inputs] == [
        seen(i) for i in real.input if i.name not in weights
    ]
    assert [(t.name, t.datatype, t.shape) for t in found.outputs] == [seen(o) for o in real.output]
    assert found.external_files == ()


def test_sizes_written_as_zero_or_less_are_free(tmp_path):
    found = read(tmp_path, model_of([tensor("x", dims=(0, -1, 3))]))
    assert found.inputs[0].shape == (-1, -1, 3)


def test_a_scalar_has_the_empty_shape(tmp_path):
    assert read(tmp_path, model_of([tensor("x", dims=())])).inputs[0].shape == ()


def test_denotations_and_documentation_do_not_disturb(tmp_path):
    image = tensor("x", dims=(1, 3, 8, 8))
    image.doc_string = "a picture"
    image.type.denotation = "IMAGE"
    image.type.tensor_type.shape.dim[1].denotation = "DATA_CHANNEL"
    assert read(tmp_path, model_of([image])).inputs[0].shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    "info",
    [
        helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None),
        helper.make_value_info(
            "y",
            helper.make_map_type_proto(
                TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [1])
            ),
        ),
        helper.make_value_info(
            "y",
            helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [1])),
        ),
        helper.make_sparse_tensor_value_info("y", TensorProto.FLOAT, [1]),
        tensor("y", TensorProto.COMPLEX64),
        tensor("y", TensorProto.UNDEFINED),
        onnx.ValueInfoProto(name="y"),
    ],
    ids=["sequence", "map", "optional", "sparse", "complex", "undefined", "no type"],
)
def test_outputs_that_cannot_be_served_are_refused_by_name(tmp_path, info):
    with pytest.raises(InvalidModel, match="'y'"):
        read(tmp_path, model_of(outputs=[info]))


def test_an_output_of_unknown_rank_is_served_and_an_input_is_not(tmp_path):
    assert read(tmp_path, model_of(outputs=[tensor("y", dims=None)])).outputs[0].shape == (-1,)
    with pytest.raises(InvalidModel, match="'x' has an open number"):
        read(tmp_path, model_of(inputs=[tensor("x", dims=None)]))


def test_axes_keep_their_names(tmp_path):
    found = read(tmp_path, model_of(inputs=[tensor("x", dims=["batch", None, 3, 0, -1, "?"])]))
    assert found.inputs[0].axes == ("batch", "", "", "", "", "")
    assert found.inputs[0].shape == (-1, -1, 3, -1, -1, -1)


@pytest.mark.parametrize("model", [model_of(nodes=[]), model_of(outputs=[])])
def test_a_graph_without_nodes_or_outputs_is_no_model(tmp_path, model):
    with pytest.raises(InvalidModel, match="nodes and"):
        read(tmp_path, model)


@pytest.mark.parametrize("data", [b"", b"\x08\x07", b"\x08\x07\x3a\x00"])
def test_a_file_without_a_graph_is_no_model(tmp_path, data):
    with pytest.raises(InvalidModel):
        read(tmp_path, data)


def nested(depth, inner):
    """Returns a node that holds a graph that holds a node … that holds a tensor."""
    node = helper.make_node("Constant", [], ["c"], value=inner)
    for _ in range(depth):
        node = helper.make_node(
            "If", ["b"], ["c"], then_branch=helper.make_graph([node], "t", [], [])
        )
    return node


def test_external_files_are_found_wherever_a_tensor_may_stand(tmp_path):
    branch = helper.make_graph([], "b", [], [], [external("w", "branch.bin")])
    sparse = onnx.SparseTensorProto(
        values=external("s", "values.bin"), indices=external("i", "i.bin")
    )
    tensors = helper.make_node("C", [], ["c"])
    tensors.attribute.add(name="t", type=onnx.AttributeProto.TENSORS).tensors.append(
        external("w", "list.bin")
    )
    sparse_node = helper.make_node("Constant", [], ["c"], sparse_value=sparse)
    graphs = helper.make_node("L", [], ["c"])
    graphs.attribute.add(name="g", type=onnx.AttributeProto.GRAPHS).graphs.append(branch)
    model = model_of(
        initializers=[external("a", "./weights/a.bin", offset="0", length="8"), external("b", "b")],
        nodes=[nested(0, external("w", "constant.bin")), nested(3, external("w", "deep.bin")),
               tensors, sparse_node, graphs],
    )  # fmt: skip
    model.graph.sparse_initializer.append(
        onnx.SparseTensorProto(values=external("v", "sparse.bin"), indices=external("j", "j.bin"))
    )
    function = model.functions.add(name="f", domain="d")
    function.node.append(nested(0, external("w", "function.bin")))
    assert read(tmp_path, model).external_files == (
        "b", "branch.bin", "constant.bin", "deep.bin", "function.bin", "i.bin", "j.bin",
        "list.bin", "sparse.bin", "values.bin", "weights/a.bin",
    )  # fmt: skip


def test_a_real_model_saved_with_external_data_names_its_file(tmp_path):
    weights = numpy_helper.from_array(np.zeros(5000, np.float32), "w")
    model = model_of([tensor("x", dims=(5000,))], initializers=[weights])
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin")
    assert read_onnx(tmp_path / "m.onnx").external_files == ("w.bin",)
    inlined = onnx.load(tmp_path / "m.onnx")
    assert read(tmp_path, inlined).external_files == ()


@pytest.mark.parametrize("location", ["../w", "/etc/passwd", "a/../../w", "", "..\\w"])
@pytest.mark.parametrize("depth", [0, 2])
def test_paths_that_leave_the_upload_are_refused_at_any_depth(tmp_path, location, depth):
    with pytest.raises(UnsafePath):
        read(tmp_path, model_of(nodes=[nested(depth, external("w", location))]))
    with pytest.raises(UnsafePath):
        read(tmp_path, model_of(initializers=[external("w", location)]))


def hidden_in_two_graphs():
    """Two graphs in one model, which protobuf merges into one."""
    evil = model_of(initializers=[external("w", "../../etc/passwd")])
    return evil.SerializeToString() + model_of().SerializeToString()


def hidden_by_a_number():
    """The location `ok` under a key that protobuf skips, as it has a number's wire type."""
    model = model_of(initializers=[external("w", "../../etc/passwd")])
    skipped = write_varint(1 << 3 | FIXED64) + b"location" + bytes_head(2, 2) + b"ok"
    weight = model.graph.initializer.pop()
    weight = weight.SerializeToString() + bytes_head(13, len(skipped)) + skipped
    graph = model.graph.SerializeToString() + bytes_head(5, len(weight)) + weight
    return b"\x08\x07" + bytes_head(7, len(graph)) + graph


def hidden_by_a_large_number():
    """The place EXTERNAL with a bit that protobuf drops: enums have 32."""
    model = model_of(initializers=[external("w", "../../etc/passwd")])
    weight = model.graph.initializer.pop()
    weight.ClearField("data_location")
    weight = weight.SerializeToString() + b"\x70" + write_varint(2**32 + TensorProto.EXTERNAL)
    graph = model.graph.SerializeToString() + bytes_head(5, len(weight)) + weight
    return b"\x08\x07" + bytes_head(7, len(graph)) + graph


@pytest.mark.parametrize(
    "hide", [hidden_in_two_graphs, hidden_by_a_number, hidden_by_a_large_number]
)
def test_no_trick_of_the_encoding_hides_a_path_that_onnx_would_see(tmp_path, hide):
    data = hide()
    real = onnx.ModelProto.FromString(data)
    (weight,) = real.graph.initializer
    assert weight.data_location == TensorProto.EXTERNAL
    with pytest.raises((UnsafePath, InvalidModel)):
        read(tmp_path, data)


def test_graphs_nested_too_deeply_are_refused(tmp_path):
    fine = model_of(nodes=[nested(MAX_GRAPH_DEPTH - 1, external("w", "w.bin"))])
    assert read(tmp_path, fine).external_files == ("w.bin",)
    with pytest.raises(InvalidModel, match="nested too deeply"):
        read(tmp_path, model_of(nodes=[nested(MAX_GRAPH_DEPTH + 5, external("w", "w.bin"))]))


def big_model():
    return model_of(
        [tensor("x", dims=("N", 3)), tensor("w")],
        [tensor("y", dims=("N", 3)), tensor("z", TensorProto.INT64)],
        [numpy_helper.from_array(np.arange(50, dtype=np.float32), "w"), external("e", "e.bin")],
        [nested(2, external("w", "w.bin")), helper.make_node("Identity", ["x"], ["y"])],
    ).SerializeToString()


def test_a_file_cut_off_anywhere_is_refused(tmp_path):
    whole = big_model()
    graph_ends = len(whole) - len(b"\x42\x04\x0a\x00\x10\x00") - 8
    for length in range(graph_ends):
        with pytest.raises((InvalidModel, UnsafePath)):
            read(tmp_path, whole[:length])


def test_flipped_bytes_give_a_signature_or_a_refusal(tmp_path):
    whole, rng, refused = big_model(), random.Random(0), 0
    for _ in range(1500):
        broken = bytearray(whole)
        for _ in range(rng.randint(1, 5)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        try:
            assert read(tmp_path, bytes(broken)).outputs
        except (InvalidModel, UnsafePath):
            refused += 1
    assert refused > 300


@SAME_FILE
@given(st.binary(max_size=300))
def test_random_bytes_are_refused(tmp_path, data):
    with pytest.raises((InvalidModel, UnsafePath)):
        read(tmp_path, data + b"location")
