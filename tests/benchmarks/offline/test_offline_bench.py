"""The offline benchmark: what is derived, and that no text comes twice."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.errors import ImpossibleOption
from benchmarks.offline.options import OfflineBenchOptions
from benchmarks.offline.record import OfflineRecord, OfflineRound, Pass
from benchmarks.offline.run import different, run_offline


def seen(texts_per_s: float, cpu_ms: float = 1.0) -> Pass:
    """One way through the texts."""
    return Pass(texts_per_s=texts_per_s, cpu_ms=cpu_ms, run_s=10.0, load_1min=0.5)


def test_the_share_is_of_the_engine_around_it() -> None:
    """Before and after count alike, the middle round decides, and CPU has its own share."""
    rounds = [
        OfflineRound(before=seen(1000), offline=seen(rate, 1.25), after=seen(900))
        for rate in (95.0, 855.0, 950.0)
    ]
    record = OfflineRecord(
        rounds=rounds,
        scenario={"rows": 10, "workload": "queries"},
        package_digest="d",
        precision="fp32",
        package={},
    )
    document = json.loads(json.dumps(record.document()))

    assert record.ratio == pytest.approx(0.9)
    assert (document["ratio"], document["cpu_ratio"]) == (0.9, 0.8)
    assert document["rounds"][0]["offline"]["texts_per_s"] == 95.0


@given(texts=st.lists(st.sampled_from(["good", "bad", "cold soup", "good 3"])))
def test_no_text_comes_twice(texts: list[str]) -> None:
    """As many as before, each begins as it did, all are different: none is computed once for two."""
    found = different(texts)

    assert len(set(found)) == len(found) == len(texts)
    assert all(new.startswith(old) for new, old in zip(found, texts, strict=True))


def test_nothing_to_measure_is_refused() -> None:
    """Before anything is started."""
    with pytest.raises(ImpossibleOption, match="at least 1"):
        run_offline(OfflineBenchOptions(rows=0))
