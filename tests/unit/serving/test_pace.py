"""The choice between event loop and thread: by measurement, with hysteresis."""

from adlik_serving.pace import INLINE_BELOW_NS, LOOK_BACK_RUNS, THREAD_ABOVE_NS, Pace


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


def test_waits_for_the_interpreter_do_not_keep_a_tiny_model_on_the_thread():
    pace = Pace(10_000)
    pace.ran(10_000_000)
    for run in range(LOOK_BACK_RUNS):
        assert not pace.inline
        pace.ran(30_000 if run == 5 else 5_000_000)
    assert pace.inline


def test_a_slow_model_stays_on_the_thread():
    pace = Pace(THREAD_ABOVE_NS)
    for _ in range(10 * LOOK_BACK_RUNS):
        pace.ran(INLINE_BELOW_NS)
    assert not pace.inline
