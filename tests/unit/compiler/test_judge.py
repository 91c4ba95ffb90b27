"""Limits are kept to the letter, each output is judged as what it is, each decision has reasons."""

from __future__ import annotations

import json

import pytest
from adlik_compiler.judge import Limits, OutputLimits, Report, judge
from adlik_proof.check import Findings
from adlik_proof.figures import DETECTIONS, EXACT, NUMBERS, SCORES, Accuracy, OutputFigures
from adlik_proof.sameness import Fault
from hypothesis import given
from hypothesis import strategies as st

share = st.floats(0, 1)


def report(*figures, is_exact=False, source="provided", accuracy=None, **changed):
    findings = Findings(samples=20, source=source, figures=list(figures))
    if accuracy:
        findings.accuracy = accuracy
    return Report(findings=findings, is_exact=is_exact, **changed)


def scores(**changed):
    known = {"r2": 0.99, "expected_accuracy": 0.99, "interval": (0.98, 1.0), "sure": 20}
    return OutputFigures("p", SCORES, **{**known, **changed})


@given(r2=share, expected=share, sure=share, limits=st.tuples(share, share, share))
def test_class_scores_are_accepted_exactly_where_every_limit_is_kept(r2, expected, sure, limits):
    wanted = OutputLimits(
        min_r2=limits[0], min_expected_accuracy=limits[1], min_sure_agreement=limits[2]
    )
    figures = scores(r2=r2, expected_accuracy=expected, sure_agreement=sure)
    verdict = judge(report(figures), Limits(common=wanted))
    assert verdict.accepted == (r2 >= limits[0] and expected >= limits[1] and sure >= limits[2])
    assert verdict.reasons


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        (OutputFigures("y", NUMBERS, r2=0.979), "'y' keeps only R² 0.9790"),
        (OutputFigures("y", NUMBERS, r2=-3.9, worst="sample 4: 9 in place of 2"), "sample 4: 9 in"),
        (scores(r2=0.89), "'p' keeps only R² 0.8900"),
        (scores(expected_accuracy=0.97), "expected accuracy 97.0%"),
        (scores(sure_agreement=0.94), "94.0% of its 20 sure classes"),
        (OutputFigures("b", DETECTIONS, objects=62, objects_kept=0.0), "0.0% of 62 objects"),
        (OutputFigures("y", NUMBERS, r2=0.99, column_r2=0.1), "of its worst column"),
        (OutputFigures("y", NUMBERS, r2=0.99, run_share=0.4), "of its worst run"),
        (OutputFigures("i", EXACT, exact_share=0.99, run_share=0.1), "of its worst run"),
        (OutputFigures("i", EXACT, exact_share=0.9), "90.00% of the values equal"),
    ],
)
def test_what_misses_its_default_limit_is_refused_by_name(figures, said):
    good = OutputFigures("good", NUMBERS, r2=1.0)
    verdict = judge(report(good, figures), Limits())
    assert not verdict.accepted
    assert [reason for reason in verdict.reasons if said in reason]
    assert not [reason for reason in verdict.reasons if "good" in reason]


def test_an_output_may_have_limits_of_its_own():
    figures = [OutputFigures(name, NUMBERS, r2=0.9, max_error=2.0) for name in "ab"]
    loose, strict = OutputLimits(min_r2=0.8), OutputLimits(min_r2=0.8, max_abs_error=1.0)
    assert judge(report(*figures), Limits(common=loose)).accepted
    verdict = judge(report(*figures), Limits(common=loose, outputs={"b": strict}))
    assert verdict.reasons == ("'b': the largest error of 2 is over the limit of 1.",)


def test_an_absolute_limit_holds_for_the_same_precision_too():
    figures = OutputFigures("y", NUMBERS, max_error=2.0)
    assert judge(report(figures, is_exact=True), Limits()).accepted
    common = OutputLimits(max_abs_error=1.0)
    assert not judge(report(figures, is_exact=True), Limits(common=common)).accepted


def test_a_fault_is_the_reason_and_nothing_else_counts():
    faulty = report(is_exact=True)
    faulty.findings.faults.append(Fault("y", "sample 3: 'y' element [0, 1] is 2 in place of 1"))
    verdict = judge(faulty, Limits())
    assert not verdict.accepted
    assert verdict.reasons == ("Sample 3: 'y' element [0, 1] is 2 in place of 1.",)


def test_nothing_to_judge_by_is_said_with_the_cure():
    verdict = judge(report(missing="no inputs could be made up"), Limits())
    assert not verdict.accepted
    assert "no inputs could be made up" in verdict.reasons[0]
    assert "--data" in verdict.reasons[0]


def test_a_drop_of_exactly_the_limit_is_allowed():
    exactly = report(accuracy=Accuracy(rows=100, right=71, reference_right=72))
    assert judge(exactly, Limits(max_accuracy_drop=1.0)).accepted
    assert not judge(exactly, Limits(max_accuracy_drop=0.99)).accepted


def test_the_pushed_model_itself_is_accepted_whatever_could_be_seen():
    itself = report(identical=True, missing="nothing was made up", p50_ms=2.0, reference_p50_ms=2.0)
    assert judge(itself, Limits()).accepted
    assert itself.speedup == 1.0
    assert "push samples" in judge(itself, Limits()).reasons[1]


def test_what_was_seen_beside_is_said():
    seen = report(OutputFigures("y", NUMBERS), source="generated", shared=True)
    seen.findings.ties.append("index")
    seen.findings.deferred.append("nonfinite")
    said = " ".join(judge(seen, Limits()).reasons)
    for words in ("fell another way", "answered by the pushed model", "too few", "push samples"):
        assert words in said


def test_speedup_is_the_ratio_of_medians():
    assert report(p50_ms=2.0, reference_p50_ms=5.0).speedup == 2.5
    assert report().speedup == 0.0


def test_a_report_survives_the_way_from_its_process():
    sent = report(scores(), accuracy=Accuracy(3, 2, 1), refused=("empty",), sizes="x [1, 2]")
    sent.findings.faults.append(Fault("y", "wrong"))
    assert Report.of(json.loads(json.dumps(sent.as_dict()))) == sent
