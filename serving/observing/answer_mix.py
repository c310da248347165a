"""What the answers look like: labels and confidence, live and on the exam, and how far apart they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.engine import prediction
from serving.observing.drift import LastAnswers
from serving.observing.histograms import Spread, histogram
from serving.package import CONFIDENCE_EDGES, Package
from serving.session import Logits

_MOST_LABELS = 50
_OTHER, _NONE = "(other)", "(none)"


class AnswerMix(Collector):
    """Counts of the answers that *package* gave, as the package itself means them."""

    def __init__(self, package: Package) -> None:
        self._package = package
        self._exam = exam = package.exam
        self._edges = exam.edges if exam else CONFIDENCE_EDGES
        names = package.config.labels
        self._places = {name: place for place, name in enumerate(names)} | {None: len(names)}
        self._labels = [0] * (len(names) + 1)
        self._confidence = Spread(self._edges)
        self._window = LastAnswers(exam) if exam else None

    def add(self, logits: Logits) -> None:
        """Count what a text's logits (labels,) mean, whatever options its caller asked with."""
        given = prediction(logits, self._package)
        label, confidence = self._places[given.label], self._confidence.add(given.score)
        self._labels[label] += 1
        if self._window is not None:
            self._window.add(label, confidence)

    def collect(self) -> Iterator[Metric]:
        """As they are now."""
        answers = CounterMetricFamily(
            "miniml_answers", "Texts by the label they got.", labels=["label"]
        )
        for label, count in self._by_name(self._labels).items():
            answers.add_metric([label], count)
        yield answers
        yield histogram(
            *("miniml_confidence", "Score of the likeliest label."),
            edges=self._edges,
            counts=self._confidence.counts,
            total=self._confidence.total,
        )
        yield from self._exam_families()
        yield from self._drift_families()

    def _exam_families(self) -> Iterator[Metric]:
        if not self._exam:
            return
        rows = GaugeMetricFamily(
            "miniml_exam_answers", "Rows of the exam by the label they got.", labels=["label"]
        )
        for label, count in self._by_name(self._exam.labels).items():
            rows.add_metric([label], count)
        yield rows
        yield histogram(
            *("miniml_exam_confidence", "Score of the likeliest label on the exam."),
            edges=self._edges,
            counts=(*self._exam.confidence, 0),
            total=self._exam.confidence_sum,
        )

    def _drift_families(self) -> Iterator[Metric]:
        """Absent before there are enough answers, and without an exam."""
        if self._window is None:
            return
        drift = GaugeMetricFamily(
            "miniml_drift",
            "Population stability index of the last answers against the exam.",
            labels=["of"],
        )
        chance = GaugeMetricFamily(
            "miniml_drift_chance", "What it exceeds once in 1,000 without drift.", labels=["of"]
        )
        for of, found in self._window.drifts().items():
            drift.add_metric([of], found.psi)
            chance.add_metric([of], found.chance)
        yield drift
        yield chance
        yield GaugeMetricFamily(
            "miniml_drift_answers", "Answers that the drift is of.", value=len(self._window)
        )

    def _by_name(self, counts: Sequence[int]) -> Mapping[str, int]:
        """The first labels by name, the others together, and those given none where that can be."""
        names = self._package.config.labels
        found = dict(zip(names[:_MOST_LABELS], counts, strict=False))
        if len(names) > _MOST_LABELS:
            found[_OTHER] = sum(counts[_MOST_LABELS:-1])
        if self._package.config.task == "multi_label":
            found[_NONE] = counts[-1]
        return found
