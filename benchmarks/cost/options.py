"""What `miniml cost` can be told; light, as `benchmarks.options` is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class CostOptions:
    """Dollars a million texts by instance type, from a record; and from which load a GPU pays.

    From the machine of the record to an instance goes by cores: assumed, not measured.

    [bold]miniml cost slo.json --utilisation-percent 40 --gpu-rate g5.xlarge=2500[/]
    """

    record: Path | None = field(
        default=None,
        metadata={
            "argument": "RECORD",
            "help": "Of bench slo, peers, core or load; default: the demo's, kept in the checkout.",
        },
    )
    workload: str | None = field(
        default=None, metadata={"help": "Where the record has several: which."}
    )
    utilisation_percent: float = field(
        default=50.0, metadata={"help": "Of what an instance can do, what it does on average."}
    )
    at_least: int = field(default=1, metadata={"help": "Instances there are without any load."})
    price: tuple[str, ...] = field(
        default=(), metadata={"help": "m7g.xlarge=0.1632: dollars an hour that you pay."}
    )
    prices: Path | None = field(
        default=None, metadata={"help": "A table of your own, as benchmarks/cost/prices.toml."}
    )
    gpu_rate: tuple[str, ...] = field(
        default=(), metadata={"help": "g5.xlarge=2500: texts/s within the goal, measured by you."}
    )
    output: Path | None = field(
        default=None, metadata={"help": "Where the page goes; default: a new file, named."}
    )
