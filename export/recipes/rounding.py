"""Weights as integers with a scale by column: each to its nearest, or so that errors make up.

Making up (GPTQ, arXiv 2210.17323): row after row is rounded, and what that changes in the outputs of
texts is taken back, as far as it can be, by the rows that are not rounded yet. Knows no graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
_TINY = 1e-12  # a column of zeros has no scale; any positive one gives zeros back
_DAMPING = 0.01  # of the mean square, added to every input's: the texts are but a sample
_BLOCK = 64  # rows whose errors are carried on one by one; those before them in one product


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounded:
    """codes (K, N) int8; scale (N,) float32: a weight is about codes * scale."""

    codes: npt.NDArray[np.int8]
    scale: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeUp:
    """error_ratio: squared error of all outputs, against rounding to nearest (0..1)."""

    rounded: Rounded
    error_ratio: float


def round_to_nearest(weight: Floats, steps: int) -> Rounded:
    """*weight* (K, N), the largest of each column to *steps*."""
    scale = (np.maximum(np.abs(weight).max(axis=0), _TINY) / steps).astype(np.float32)
    return Rounded(codes=np.rint(weight / scale).astype(np.int8), scale=scale)


def round_making_up(weight: Floats, gram: Floats, steps: int) -> MadeUp:
    """*weight* (K, N) for inputs X with *gram* (K, K) = X^T X; scales as `round_to_nearest` has them.

    No column has a larger squared error of its outputs X @ weight than rounded to nearest.
    """
    nearest = round_to_nearest(weight, steps)
    # Large inputs first, while many rows are left to take their errors back.
    order = np.argsort(-np.diag(gram), kind="stable")
    carried = _carried(gram, order)
    if carried is None:
        return MadeUp(rounded=nearest, error_ratio=1.0)
    codes = np.empty_like(nearest.codes)
    codes[order] = _round_in_turn(weight[order], nearest.scale, carried, steps)
    made_up = Rounded(codes=codes, scale=nearest.scale)
    before, after = (squared_errors(weight, found, gram) for found in (nearest, made_up))
    codes = np.where(after < before, codes, nearest.codes)
    ratio = np.minimum(after, before).sum() / max(before.sum(), _TINY)
    return MadeUp(rounded=Rounded(codes=codes, scale=nearest.scale), error_ratio=float(ratio))


def squared_errors(weight: Floats, rounded: Rounded, gram: Floats) -> npt.NDArray[np.float64]:
    """By column (N,): of all outputs over the inputs in *gram*."""
    errors = weight - rounded.codes * rounded.scale.astype(np.float64)
    found: npt.NDArray[np.float64] = np.einsum("kn,kn->n", errors, gram.astype(np.float64) @ errors)
    return found


def _carried(gram: Floats, order: npt.NDArray[np.intp]) -> Floats | None:
    """(K, K): at [j, i], j before i in *order*, how much of the error of row j row i takes back.

    With R upper triangular and R R^T = gram, the squared error is |R^T errors|^2, in which row i is
    the last one of entry i: it cancels the entry but for its own rounding. None for inputs that are
    all zero, or no numbers.
    """
    damping = _DAMPING * float(np.diag(gram).mean())
    if not (np.isfinite(damping) and damping > 0):
        return None
    last_first = order[::-1]
    damped = gram[np.ix_(last_first, last_first)].astype(np.float64)
    damped[np.diag_indices_from(damped)] += damping
    try:
        upper = np.linalg.cholesky(damped)[::-1, ::-1]
    except np.linalg.LinAlgError:  # rounding made a nearly singular one indefinite
        return None
    return (upper / np.diag(upper)).astype(np.float32)


def _round_in_turn(weight: Floats, scale: Floats, carried: Floats, steps: int) -> Floats:
    """Codes (K, N) of *weight*, whose rows are in the order of *carried*."""
    codes, errors = np.empty_like(weight), np.empty_like(weight)
    for start in range(0, len(weight), _BLOCK):
        stop = min(start + _BLOCK, len(weight))
        block = weight[start:stop] + carried[:start, start:stop].T @ errors[:start]
        for row in range(start, stop):
            wanted = block[row - start] + carried[start:row, row] @ errors[start:row]
            codes[row] = np.clip(np.rint(wanted / scale), -steps, steps)
            errors[row] = weight[row] - codes[row] * scale
    return codes
