"""Transformer encoders, as torch exports them, as plans."""

import warnings

import numpy as np
import pytest
import torch
from adlik_kernels import load_model, load_plan
from torch import nn

from .test_model import check, expected


class Layer(nn.Module):
    """One layer of BERT: attention written out, sums and normalisations behind."""

    def __init__(self, columns, heads, *, fused):
        super().__init__()
        self.heads, self.fused = heads, fused
        self.query, self.key, self.value, self.out = (nn.Linear(columns, columns) for _ in "qkvo")
        self.up, self.down = nn.Linear(columns, 2 * columns), nn.Linear(2 * columns, columns)
        self.norms = nn.ModuleList(nn.LayerNorm(columns) for _ in range(2))

    def split(self, x):
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x, mask):
        q, k, v = (self.split(part(x)) for part in (self.query, self.key, self.value))
        if self.fused:
            found = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
            found = (scores + mask).softmax(-1) @ v
        joined = found.transpose(1, 2).reshape(x.shape)
        x = self.norms[0](x + self.out(joined))
        return self.norms[1](x + self.down(nn.functional.gelu(self.up(x))))


class Encoder(nn.Module):
    """Embeddings, two layers, the first token's columns into a head."""

    def __init__(self, *, fused):
        super().__init__()
        self.words, self.places = nn.Embedding(50, 24), nn.Embedding(40, 24)
        self.norm = nn.LayerNorm(24)
        self.layers = nn.ModuleList(Layer(24, 3, fused=fused) for _ in range(2))

    def forward(self, ids, seen):
        x = self.words(ids) + self.places(torch.arange(ids.shape[1])[None])
        mask = (1.0 - seen[:, None, None, :].float()) * -1e9
        x = self.norm(x)
        for layer in self.layers:
            x = layer(x, mask)
        return x


def inputs(batch, tokens):
    rng = np.random.default_rng(batch * tokens)
    seen = np.ones((batch, tokens), np.int64)
    seen[:, tokens // 2 + 1 :] = 0
    return {"ids": rng.integers(0, 50, (batch, tokens)), "seen": seen}


def export(path, model, *, opset, is_open):
    given = inputs(2, 7)
    open_sizes = {0: "batch", 1: "tokens"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            tuple(torch.from_numpy(array) for array in given.values()),
            str(path),
            dynamo=False,
            input_names=list(given),
            output_names=["states"],
            opset_version=opset,
            dynamic_axes=dict.fromkeys([*given, "states"], open_sizes) if is_open else {},
        )


@pytest.mark.parametrize("opset", [14, 17])
@pytest.mark.parametrize("fused", [False, True])
def test_an_encoder_of_open_length_is_one_plan_behind_its_embeddings(tmp_path, opset, fused):
    torch.manual_seed(0)
    path = tmp_path / "encoder.onnx"
    export(path, Encoder(fused=fused), opset=opset, is_open=True)
    model = load_model(path)
    for batch, tokens in ((1, 1), (2, 7), (3, 12), (1, 33), (2, 7)):
        given = inputs(batch, tokens)
        want = expected(path, given)["states"]
        np.testing.assert_allclose(model(given)["states"], want, rtol=1e-3, atol=1e-5)
    plans = [part for part in model.parts if part.engine == "kernels"]
    assert len(plans) == 1
    assert plans[0].operators == {"norm": 5, "dense": 12, "attention": 2}


def test_an_encoder_of_fixed_length(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "encoder.onnx"
    export(path, Encoder(fused=False), opset=17, is_open=False)
    model = check(path, inputs(2, 7))
    assert {"attention": 2}.items() <= model.parts[-1].operators.items()


def test_a_sequence_model_alone(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "mixer.onnx"
    x = torch.randn(2, 5, 16)
    layers = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.LayerNorm(24), nn.Linear(24, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            nn.Sequential(layers, nn.Softmax(-1)).eval(),
            (x,),
            str(path),
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": {0: "b", 1: "t"}},
        )
    plan = load_plan(path)
    kinds = [operator.kind for operator in plan.graph.operators]
    assert kinds == ["dense", "norm", "dense", "softmax"]
    for shape in ((1, 5, 16), (3, 9, 16)):
        given = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        (want,) = expected(path, {"x": given}).values()
        np.testing.assert_allclose(plan(given), want, rtol=1e-4, atol=1e-6)
