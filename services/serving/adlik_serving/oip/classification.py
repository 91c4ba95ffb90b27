"""The classification extension: the k best classes of an output as "value:index" strings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from adlik_common.errors import InvalidRequest

from adlik_serving.oip.request import Array, RequestedOutput


def classify(
    outputs: Mapping[str, Array], wanted: Iterable[RequestedOutput]
) -> Mapping[str, Array]:
    """Returns the outputs with those that ask for classes replaced by them.

    An output of shape [rows, ...] becomes BYTES of shape [rows, k], of one dimension BYTES [k]:
    the k largest values of each row, largest first, as b"value:index". Of equal values the one with
    the lowest index comes first; NaN comes last. Whole numbers are ranked and written exactly, and
    of fractions as many digits are written as tell them apart, six at least.

    Raises:
        InvalidRequest: The output holds no numbers to rank.
    """
    replaced = {
        output.name: _best(output, outputs[output.name]) for output in wanted if output.classes
    }
    return {**outputs, **replaced} if replaced else outputs


def _best(output: RequestedOutput, scores: Array) -> Array:
    if scores.dtype.kind not in "fiu" or scores.ndim == 0 or not scores.size:
        raise InvalidRequest(
            f"Output '{output.name}' ({scores.dtype}, shape {list(scores.shape)}) has no scores "
            "to classify by.",
            cure="Ask for the tensor itself.",
        )
    rows = scores.reshape(scores.shape[0] if scores.ndim > 1 else 1, -1)
    count = min(output.classes, rows.shape[1])
    # Negating whole numbers could overflow; to invert their bits turns their order around too.
    keys = -rows if rows.dtype.kind == "f" else ~rows
    order = np.argsort(keys, axis=1, kind="stable")[:, :count]
    best = np.empty(order.shape, np.object_)
    for row, column in np.ndindex(*order.shape):
        index = int(order[row, column])
        best[row, column] = f"{_text(rows[row, index])}:{index}".encode()
    return best if scores.ndim > 1 else best[0]


def _text(score: np.generic) -> str:
    """Returns a number's shortest decimal form that stands for it alone, without an exponent."""
    if isinstance(score, np.floating):
        return np.format_float_positional(score, min_digits=6)
    return str(score)
