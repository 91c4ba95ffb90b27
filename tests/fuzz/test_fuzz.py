"""Random graphs in plans answer as ONNX Runtime does; so do all that once did not."""

from collections import Counter

import numpy as np
import pytest

from tests.conformance.children import Child, answers
from tests.conformance.judge import Reference
from tests.fuzz import __main__ as search
from tests.fuzz.findings import FOLDER, read_finding, write_finding
from tests.fuzz.generate import generated
from tests.fuzz.shrink import shrunk

SEEDS = range(7_000_000, 7_000_120)
"""What every run of the tests looks at; `make fuzz` looks further."""

FINDINGS = sorted(FOLDER.glob("*.onnx"))


@pytest.mark.timeout(1200)
def test_random_graphs_answer_as_the_reference_does(tmp_path):
    jobs = ({"seed": seed} for seed in SEEDS)
    found = list(answers(search.MODULE, str(tmp_path), jobs=jobs))
    bad = [(job, said) for job, said in found if said.get("verdict") not in {"right", "invalid"}]
    assert not bad
    verdicts = Counter(said["verdict"] for _, said in found)
    assert verdicts["right"] > 0.85 * len(SEEDS), verdicts
    assert sum(bool(said.get("plans")) for _, said in found) > 0.6 * len(SEEDS)


@pytest.fixture(scope="module")
def child(tmp_path_factory):
    made = Child(search.MODULE, str(tmp_path_factory.mktemp("kernels")))
    yield made
    made.close()


@pytest.mark.parametrize("path", FINDINGS, ids=[path.stem for path in FINDINGS])
def test_what_was_found_stays_mended(child, path):
    assert child.answer({"path": str(path)})["verdict"] == "right"


def test_a_seed_is_one_graph():
    one, two = generated(3), generated(3)
    assert one[0] == two[0]
    for a, b in zip(one[1], two[1], strict=True):
        assert {n: x.tobytes() for n, x in a.items()} == {n: x.tobytes() for n, x in b.items()}


def test_a_finding_is_kept_whole(tmp_path):
    model, feeds = generated(5)
    feeds[0]["x0"].reshape(-1)[0] = np.nan
    write_finding(tmp_path / "one.onnx", model, feeds)
    again, arrays = read_finding(tmp_path / "one.onnx")
    assert again == model
    for want, got in zip(feeds, arrays, strict=True):
        assert {n: x.tobytes() for n, x in want.items()} == {n: x.tobytes() for n, x in got.items()}


def test_a_finding_is_made_small():
    seed = next(s for s in range(100) if "Conv" in kinds(generated(s)[0]))
    model, feeds = shrunk(generated(seed), lambda finding: "Conv" in kinds(finding[0]))
    assert kinds(model) == ["Conv"]
    assert len(feeds) == 1
    assert Reference(model)(feeds[0])


def kinds(model):
    return [node.op_type for node in model.graph.node]


def test_a_wrong_plan_is_found_and_made_small(tmp_path, capsys, monkeypatch):
    """The search itself, with a child that finds every graph with a Relu wrong."""
    monkeypatch.setattr(search, "MODULE", "tests.fuzz.sabotage")
    found = search.search(({"seed": seed} for seed in range(8)), str(tmp_path), tmp_path)
    assert found
    told = capsys.readouterr().out
    assert "made small" in told
    assert "8 graphs" in told
    smallest = [kinds(read_finding(path)[0]) for path in tmp_path.glob("seed_*.onnx")]
    assert smallest == [["Relu"]] * found
