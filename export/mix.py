"""What the served variant answered on the exam, as counts that live answers are held against."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

from serving.engine import prediction
from serving.package import CONFIDENCE_EDGES, ExamMix, Package
from serving.session import Logits

_SHOWN_LABELS = 20
_OTHERS, _NONE = "(other labels)", "(none)"


def exam_mix(logits: Logits, package: Package) -> ExamMix:
    """Of logits (N, labels), each row meant as serving means it: with temperature and thresholds."""
    names = package.config.labels
    places = {name: place for place, name in enumerate(names)} | {None: len(names)}
    labels, confidence = [0] * (len(names) + 1), [0] * len(CONFIDENCE_EDGES)
    total = 0.0
    for row in logits:
        given = prediction(row, package)
        labels[places[given.label]] += 1
        confidence[bisect_left(CONFIDENCE_EDGES, given.score)] += 1
        total += given.score
    return ExamMix(
        confidence=tuple(confidence), confidence_sum=round(total, 6), labels=tuple(labels)
    )


def described(mix: ExamMix, names: tuple[str, ...]) -> Mapping[str, str]:
    """For people: what share of rows got each label, most first, and how sure the answers were."""
    given = [(name, count) for name, count in zip((*names, _NONE), mix.labels, strict=True)]
    most = sorted(
        (pair for pair in given if pair[1] or pair[0] != _NONE), key=lambda pair: -pair[1]
    )
    shown = dict(most[:_SHOWN_LABELS])
    if rest := most[_SHOWN_LABELS:]:
        shown[_OTHERS] = sum(count for _, count in rest)
    rows = max(1, mix.rows)
    return {
        **{name: f"{count} of {mix.rows} ({count / rows:.1%})" for name, count in shown.items()},
        "mean score of the likeliest label": f"{mix.confidence_sum / rows:.3f}",
    }
