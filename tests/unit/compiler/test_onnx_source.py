"""Weights beside a model are taken in; what lies outside its folder is not."""

from __future__ import annotations

import onnx
import pytest
from adlik_common.errors import InvalidModel, MissingExternalData, UnsafePath
from adlik_compiler.onnx_source import self_contained
from onnx import helper, numpy_helper


def relocate(path, location):
    model = onnx.load(path, load_external_data=False)
    (entry,) = (e for e in model.graph.initializer[0].external_data if e.key == "location")
    entry.value = location
    path.write_bytes(model.SerializeToString())


def test_a_whole_file_is_left_as_it_is(save, tmp_path):
    path = save()
    assert self_contained(path, tmp_path) == path


def test_a_file_that_only_speaks_of_locations_is_left_as_it_is(save, tmp_path):
    path = save()
    model = onnx.load(path)
    model.doc_string = "the location of everything"
    onnx.save(model, path)
    assert self_contained(path, tmp_path) == path


def test_external_weights_are_inlined(save, tmp_path):
    whole, split = save(), save("split.onnx", external="deep.data")
    out = tmp_path / "out"
    out.mkdir()
    inlined = self_contained(split, out)
    (tmp_path / "deep.data").unlink()
    loaded = onnx.load(inlined)
    expected = onnx.load(whole).graph.initializer[0]
    assert (
        numpy_helper.to_array(loaded.graph.initializer[0]) == numpy_helper.to_array(expected)
    ).all()


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret", "a/../../secret"])
def test_a_location_outside_the_folder_is_refused(save, tmp_path, location):
    (tmp_path.parent / "secret").write_bytes(bytes(4096))
    path = save(external="net.data")
    relocate(path, location)
    with pytest.raises(UnsafePath):
        self_contained(path, tmp_path)


def test_a_location_hidden_in_a_nested_graph_is_refused_too(save, tmp_path):
    path = save(external="net.data")
    model = onnx.load(path, load_external_data=False)
    hidden = model.graph.initializer[0]
    constant = helper.make_node("Constant", [], ["c"])
    attribute = constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
    attribute.t.CopyFrom(hidden)
    for entry in attribute.t.external_data:
        if entry.key == "location":
            entry.value = "../secret"
    branch = helper.make_graph([constant], "branch", [], [])
    model.graph.node.append(
        helper.make_node("If", ["x"], ["z"], then_branch=branch, else_branch=branch)
    )
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UnsafePath):
        self_contained(path, tmp_path)


def test_a_file_that_was_not_pushed_is_named(save, tmp_path):
    path = save(external="net.data")
    (tmp_path / "net.data").unlink()
    with pytest.raises(MissingExternalData, match=r"'net\.data'"):
        self_contained(path, tmp_path)


def test_weights_cut_short_are_no_model(save, tmp_path):
    path = save(external="net.data")
    (tmp_path / "net.data").write_bytes(b"short")
    with pytest.raises(InvalidModel):
        self_contained(path, tmp_path)


@pytest.mark.parametrize("content", [b"", b"location of no model"])
def test_bytes_that_are_no_model_are_refused(tmp_path, content):
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidModel):
        self_contained(path, tmp_path)
