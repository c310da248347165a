"""`miniml promote`: a candidate takes the champion's place, if it agreed with it enough."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.errors import ServingError
from serving.locate import pin, point_alias
from serving.options import DeployOptions, PromoteOptions
from serving.rollout.deploying import Deployed, deploy
from serving.shadow.commands import fetch
from serving.shadow.report import ShadowReport

_SHORT = 12


class NotPromoted(ServingError):
    """What is known of the candidate does not allow it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoted:
    """It answers everywhere now, and *alias* names it."""

    alias: str
    report: ShadowReport
    deployed: Deployed

    def document(self) -> dict[str, Any]:
        """As JSON."""
        agreement = self.report.agreed.agreement
        assert agreement, "promoted without a text; this is a bug"
        return {
            **self.deployed.document(),
            "alias": self.alias,
            "texts": self.report.compared,
            "agreement": {"share": agreement.share, "low": agreement.low, "high": agreement.high},
        }

    def __rich__(self) -> str:
        """Two sentences."""
        said = self.deployed
        return (
            f"{said.package} ({said.digest[:_SHORT]}) answers in {said.replicas} replica(s), and"
            f" {self.alias} names it. It agreed on {self.report.agreed.agreeing:,} of"
            f" {self.report.compared:,} texts."
        )


def promote(options: PromoteOptions) -> Promoted:
    """Deploy the candidate, and point the alias at it once nothing was found against it.

    Raises `NotPromoted`, what `deploy` does, and registry errors.
    """
    reference, digest = pin(options.package)
    if Path(reference).is_dir() or "://" in reference:
        raise NotPromoted(
            f"{reference} was never published, so no alias can name it.",
            hint="Deploy it without one: miniml deploy.",
        )
    report = fetch(options.url)
    if why := objection(
        report, digest, min_agreement=options.min_agreement, min_texts=options.min_texts
    ):
        raise NotPromoted(f"{reference} ({digest[:_SHORT]}) is not promoted: {why}.")
    deployed = deploy(DeployOptions(package=reference, url=options.url, watch=options.watch))
    # Only now: an alias names what has proved itself, and what a server begins with.
    point_alias(options.alias, reference)
    return Promoted(alias=options.alias, report=report, deployed=deployed)


def objection(
    report: ShadowReport, digest: str, *, min_agreement: float, min_texts: int
) -> str | None:
    """Why the package of *digest* may not take the champion's place; None where it may."""
    if report.candidate != digest:
        return (
            f"the candidate that runs is {report.package} ({report.candidate[:_SHORT]}), and nothing"
            " is known of this one"
        )
    if report.elsewhere:
        return f"{report.elsewhere} replica(s) have other packages just now; ask again"
    agreement = report.agreed.agreement
    if agreement is None or report.compared < min_texts:
        return f"{report.compared:,} texts were compared, and {min_texts:,} are asked for"
    if agreement.low < min_agreement:
        return (
            f"it agreed on {report.agreed.agreeing:,} of {report.compared:,} texts,"
            f" {agreement.share:.2%} and with 95 % certainty {agreement.low:.2%} at least;"
            f" {min_agreement:.2%} is asked for"
        )
    return None
