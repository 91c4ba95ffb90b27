"""Ways in which a variant can be wrong, each as a wrapper around a model that runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.proof_cases import wrong_places, wrong_times, wrong_values
from benchmarks.proof_cases.scene import Scene, Wrapped

WRAPPERS: dict[str, Callable[[Scene], Iterator[Wrapped]]] = {
    "last row wrong": wrong_places.last_row,
    "wrong from the third row": wrong_places.third_row,
    "wrong from the 65th row": wrong_places.row_beyond_64,
    "border wrong": wrong_places.border,
    "wrong from the ninth token": wrong_places.ninth_token,
    "tail of an open axis wrong": wrong_places.tail_of_eight,
    "output scaled by 1.05": wrong_values.scaled,
    "column zeroed": wrong_places.column_zeroed,
    "channels swapped": wrong_places.channels_swapped,
    "boxes shifted": wrong_places.boxes_shifted,
    "index off by one": wrong_values.off_by_one,
    "truth turned": wrong_values.truth_turned,
    "64 bits cut to 32": wrong_values.cut_to_32_bits,
    "whole numbers as floats": wrong_values.whole_numbers_as_floats,
    "output saturated": wrong_values.saturated,
    "NaN on one row in a hundred": wrong_times.nan_in_a_hundred,
    "wrong on real samples only": wrong_times.on_real_samples,
    "wrong in company only": wrong_times.in_company,
    "NaN dropped": wrong_values.nan_dropped,
    "another datatype": wrong_values.another_datatype,
    "shape wrong for one row": wrong_places.one_row_loses_its_axis,
    "outputs swapped": wrong_places.outputs_swapped,
    "answer of the call before": wrong_times.answer_of_before,
    "every fifth call wrong": wrong_times.every_fifth_call,
    "noise of 0.001 of the spread": wrong_values.small_noise,
    "one element wrong": wrong_places.one_element,
    "wrong for negative numbers": wrong_values.negative_numbers,
    "wrong for large numbers": wrong_values.large_numbers,
    "wrong for zeros": wrong_values.zeros,
    "accents lost": wrong_values.accents_lost,
    "texts shortened": wrong_values.texts_shortened,
    "fails without rows": wrong_times.fails_without_rows,
    "fails for several rows": wrong_times.fails_beyond_one_row,
    "input ignored": wrong_values.input_ignored,
}

GROSS = (
    "last row wrong", "wrong from the third row", "column zeroed", "channels swapped",
    "index off by one", "output saturated", "outputs swapped", "answer of the call before",
    "another datatype", "shape wrong for one row", "border wrong", "boxes shifted",
    "wrong from the ninth token", "input ignored",
)  # fmt: skip
"""What is tried as a claim of 8 bits, too, where the plan's limits hold it."""
FORMS = tuple(kind for kind in GROSS if kind != "output saturated")
"""The same without samples: how large what really comes may be is not known then."""
