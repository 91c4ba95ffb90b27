"""Limits are kept to the letter and each decision has its reasons."""

from __future__ import annotations

from adlik_compiler.judge import Limits, Report, judge
from hypothesis import given
from hypothesis import strategies as st

share = st.floats(0, 1)


def report(**changed):
    fields = {"samples": 20, "samples_source": "provided", "cosine": 0.999, "top1_agreement": 0.95}
    return Report(**{**fields, **changed})


@given(
    cosine=share,
    agreement=st.none() | share,
    accuracy=share,
    reference=share,
    limits=st.builds(Limits, share, share, st.floats(0, 100)),
    samples=st.integers(8, 1000),
)
def test_accepted_exactly_where_every_limit_is_kept(
    cosine, agreement, accuracy, reference, limits, samples
):
    verdict = judge(
        report(
            samples=samples,
            cosine=cosine,
            top1_agreement=agreement,
            accuracy=accuracy,
            reference_accuracy=reference,
        ),
        limits,
    )
    assert verdict.accepted == (
        cosine >= limits.min_cosine
        and (agreement is None or agreement >= limits.min_top1_agreement)
        and 100 * (reference - accuracy) <= limits.max_accuracy_drop + 1e-9
    )
    assert verdict.reasons


def test_a_good_variant_is_accepted_with_its_figures():
    verdict = judge(report(), Limits())
    assert verdict.accepted
    assert verdict.reasons == (
        "Cosine similarity 0.99900 reaches the limit of 0.98 (20 provided samples).",
        "Top-1 agreement 95.0% reaches the limit of 90.0%.",
    )


def test_values_that_are_not_finite_are_refused_whatever_else_is_right():
    verdict = judge(report(cosine=1.0, not_finite=3), Limits())
    assert not verdict.accepted
    assert "3 output values are NaN or infinite" in verdict.reasons[0]


def test_other_outputs_or_a_failed_run_are_refused():
    assert not judge(report(mismatch="'y' has shape [1]"), Limits()).accepted
    assert "out of memory" in judge(report(failure="out of memory"), Limits()).reasons[0]


def test_agreement_on_generated_or_few_samples_is_said_and_not_judged():
    for few in (
        report(samples_source="generated", top1_agreement=0.1),
        report(samples=7, top1_agreement=0.1),
    ):
        verdict = judge(few, Limits())
        assert verdict.accepted
        assert "was not judged" in verdict.reasons[1]


def test_a_drop_of_exactly_the_limit_is_allowed():
    exactly = report(accuracy=0.71, reference_accuracy=0.72)
    assert judge(exactly, Limits(max_accuracy_drop=1.0)).accepted
    assert not judge(exactly, Limits(max_accuracy_drop=0.99)).accepted


def test_the_pushed_model_itself_is_accepted_at_a_speedup_of_one():
    itself = report(identical=True, cosine=1.0, p50_ms=2.0, reference_p50_ms=2.0)
    assert judge(itself, Limits(min_cosine=1.0)).accepted
    assert itself.speedup == 1.0


def test_speedup_is_the_ratio_of_medians():
    assert report(p50_ms=2.0, reference_p50_ms=5.0).speedup == 2.5
    assert report().speedup == 0.0
