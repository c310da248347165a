"""Laws of what a record says of its package."""

from __future__ import annotations

import pytest

from benchmarks.subject import _public


@pytest.mark.parametrize(
    ("base_model", "told"),
    [
        ("google-bert/bert-base-cased", "google-bert/bert-base-cased"),
        ("models/mine", "models/mine"),
        ("/somewhere/of/mine/bert-base-random", "bert-base-random"),
    ],
)
def test_a_record_does_not_say_where_a_folder_lies(base_model: str, told: str) -> None:
    """Records are kept and shown: a hub id stands as it is, of a folder its name."""
    assert _public(base_model) == told
