"""What a shadow finds, as Prometheus reads it; nothing where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import INF, floatToGoString

from serving.agreement import Counts, Times
from serving.shadow.report import ShadowState

# Pairs of so many labels, and of the others together: 111 series at most.
_MOST_LABELS = 10
_OTHER = "(other)"
_POWERS = range(-2, 13)  # of two: from 0.25 ms to 4 s


class ShadowMetrics(Collector):
    """Of the shadow whose *state* is read when somebody asks. labels: the champion's."""

    def __init__(self, labels: Sequence[str], state: Callable[[], ShadowState | None]) -> None:
        self._labels = labels[:_MOST_LABELS]
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """As it is now."""
        if (state := self._state()) is None:
            return
        about = InfoMetricFamily("miniml_shadow", "The candidate beside what is served.")
        about.add_metric([], {"digest": state.candidate.digest, "champion": state.champion})
        yield about
        yield GaugeMetricFamily(
            "miniml_shadow_comparing",
            "1, or 0 while the candidate starts or is down.",
            value=float(state.standing == "comparing"),
        )
        texts = CounterMetricFamily(
            "miniml_shadow_texts",
            "Texts that were offered to the candidate, by what became of them.",
            labels=["outcome"],
        )
        for outcome, count in (
            ("compared", state.counts.texts),
            ("dropped", state.dropped),
            *state.left_out.items(),
        ):
            texts.add_metric([outcome], count)
        yield texts
        yield GaugeMetricFamily(
            "miniml_shadow_waiting_texts", "Texts that wait for it.", value=state.waiting
        )
        yield CounterMetricFamily(
            "miniml_shadow_agreeing",
            "Texts that both gave one answer.",
            value=state.counts.agreeing,
        )
        yield self._disagreements(state.counts)
        yield _infer_seconds(state.counts)

    def _disagreements(self, counts: Counts) -> Metric:
        """Every pair from the start, at 0: else Prometheus would not see the first."""
        names = (*self._labels, _OTHER)
        pairs = {
            (ours, theirs): 0
            for ours in names
            for theirs in names
            if ours != theirs or ours == _OTHER
        }
        known = set(self._labels)
        for (ours, theirs), texts in counts.pairs.items():
            pair = (ours if ours in known else _OTHER, theirs if theirs in known else _OTHER)
            pairs[pair] += texts
        family = CounterMetricFamily(
            "miniml_shadow_disagreements",
            "Texts that got two different labels, by the champion's and the candidate's.",
            labels=["champion", "candidate"],
        )
        for pair, texts in pairs.items():
            family.add_metric(pair, texts)
        return family


def _infer_seconds(counts: Counts) -> Metric:
    family = HistogramMetricFamily(
        "miniml_shadow_infer_seconds", "Of the batches that compared texts ran in.", labels=["by"]
    )
    for by, times in (("champion", counts.champion_ms), ("candidate", counts.candidate_ms)):
        family.add_metric([by], _buckets(times), sum_value=times.total_ms / 1e3)
    return family


def _buckets(times: Times) -> list[tuple[str, float]]:
    edges = [(floatToGoString(2**power / 1e3), times.up_to(power)) for power in _POWERS]
    return [*edges, (floatToGoString(INF), times.count)]
