"""The choice between event loop and thread: by measurement, with hysteresis."""

from adlik_serving.pace import INLINE_BELOW_NS, THREAD_ABOVE_NS, Pace


def test_the_warm_up_decides_first():
    assert Pace(INLINE_BELOW_NS - 1).inline
    assert not Pace(INLINE_BELOW_NS).inline


def test_a_time_between_the_limits_changes_nothing():
    for start in (INLINE_BELOW_NS - 1, THREAD_ABOVE_NS + 1):
        pace = Pace(start)
        before = pace.inline
        for _ in range(100):
            pace.ran((INLINE_BELOW_NS + THREAD_ABOVE_NS) // 2)
        assert pace.inline is before


def test_a_slow_run_leaves_the_loop_at_once_and_fast_ones_come_back():
    pace = Pace(10_000)
    pace.ran(10_000_000)
    assert not pace.inline
    for _ in range(40):
        pace.ran(10_000)
    assert pace.inline
