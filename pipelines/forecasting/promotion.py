"""Champion or challenger: the gates that a new model must pass before its forecasts replace those in force."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from pipelines.forecasting.backtests import Comparison
from pipelines.operations.settings import PromotionSettings

SURE = 1.645
"""Standard errors of noise that a loss is forgiven: refused only where it is a loss with 95 % confidence."""


@dataclass(frozen=True)
class Evidence:
    """The pooled scores of a training's own backtest (NaN: nothing was scored)."""

    wape: float
    baseline_wape: float
    bias: float
    coverage: float

    @classmethod
    def of(cls, metrics: Mapping[str, float]) -> Evidence:
        """From a run's metrics; what is missing there is NaN."""
        return cls(*(metrics.get(name, float("nan")) for name in ("wape", "baseline_wape", "bias", "coverage")))

    @property
    def relative(self) -> float:
        """WAPE over seasonal naive's on the same days."""
        return self.wape / self.baseline_wape if self.baseline_wape > 0 else float("nan")


@dataclass(frozen=True)
class Champion:
    """What is in force: its forecast version, its last day of data, its own scores, and the two compared."""

    forecast_version: str
    as_of: date
    evidence: Evidence
    comparison: Comparison


@dataclass(frozen=True)
class Verdict:
    """One gate's."""

    gate: str
    passed: bool
    reason: str

    def __str__(self) -> str:
        return f"{self.gate}: {'passed' if self.passed else 'refused'}, {self.reason}"


@dataclass(frozen=True)
class Decision:
    """Whether the challenger takes over; `overruled` says why it does although a gate refused it."""

    verdicts: tuple[Verdict, ...]
    overruled: str | None = None

    @property
    def promoted(self) -> bool:
        """All gates passed, or their refusal was overruled."""
        return self.overruled is not None or all(verdict.passed for verdict in self.verdicts)

    def tags(self) -> dict[str, str]:
        """For MLflow: the decision and each gate's verdict."""
        decision = "promoted" if self.promoted else "refused"
        return {
            "promotion": decision if self.overruled is None else f"{decision}: {self.overruled}",
            **{f"promotion.{verdict.gate}": str(verdict).partition(": ")[2] for verdict in self.verdicts},
        }

    def __str__(self) -> str:
        told = "promoted" if self.promoted else "stays challenger"
        if self.overruled is not None:
            told += f" ({self.overruled})"
        return "; ".join([told, *map(str, self.verdicts)])


def decide(challenger: Evidence, as_of: date, champion: Champion | None, settings: PromotionSettings) -> Decision:
    """Judge a challenger, whose data end with `as_of`, by gain, bias and coverage.

    Where nothing is in force, any complete forecasts are better than none; where the forecasts in force are of
    a day further away than `longest_refusal_days`, age would cost more than what the gates protect from. Then,
    and where `gated` is off, a refusal is overruled.
    """
    verdicts = (
        _gain(challenger, champion, settings.minimum_gain),
        _bias(challenger, settings.largest_bias),
        _coverage(challenger, settings.lowest_coverage, settings.highest_coverage),
    )
    if all(verdict.passed for verdict in verdicts):
        return Decision(verdicts)
    if not settings.gated:
        return Decision(verdicts, "promotion.gated is off")
    if champion is None:
        return Decision(verdicts, "nothing else is in force")
    apart = abs((as_of - champion.as_of).days)
    if apart >= settings.longest_refusal_days:
        return Decision(verdicts, f"the forecasts in force are of a day {apart} days away")
    return Decision(verdicts)


def _gain(challenger: Evidence, champion: Champion | None, minimum: float) -> Verdict:
    if champion is None:
        return Verdict("gain", True, "there is no champion")
    compared, named = champion.comparison, f"the champion's ({champion.forecast_version})"
    if compared.champion > 0 and compared.series:
        passed = not compared.gain + SURE * compared.noise < minimum
        return Verdict(
            "gain",
            passed,
            f"error {_lower(compared.gain, compared.noise)} {named} on {compared.days} common days of "
            f"{compared.series} series, {_asked(minimum)}",
        )
    mine, theirs = challenger.relative, champion.evidence.relative
    if not math.isfinite(theirs):
        return Verdict("gain", True, f"{named} errors are not known")
    if not math.isfinite(mine):
        return Verdict("gain", False, "nothing could be scored, while the champion was")
    gain = 1 - mine / theirs
    return Verdict(
        "gain",
        gain >= minimum,
        f"no common days: WAPE {mine:.2f} of seasonal naive's, {_lower(gain)} {named}, each on days of its own, "
        f"{_asked(minimum)}",
    )


def _bias(challenger: Evidence, largest: float) -> Verdict:
    if math.isnan(challenger.bias):
        return Verdict("bias", True, "nothing was scored")
    return Verdict("bias", abs(challenger.bias) <= largest, f"{challenger.bias:+.1%}, at most ±{largest:.0%} is asked")


def _coverage(challenger: Evidence, low: float, high: float) -> Verdict:
    if math.isnan(challenger.coverage):
        return Verdict("coverage", True, "nothing was scored")
    passed = low <= challenger.coverage <= high
    return Verdict("coverage", passed, f"{challenger.coverage:.0%} by the 80 % interval, {low:.0%} to {high:.0%} asked")


def _lower(gain: float, noise: float = float("nan")) -> str:
    spread = f" (± {noise:.1%})" if math.isfinite(noise) else ""
    return f"{abs(gain):.1%}{spread} {'below' if gain >= 0 else 'above'}"


def _asked(minimum: float) -> str:
    return f"at least {minimum:.0%} below is asked" if minimum > 0 else f"up to {-minimum:.0%} above is allowed"
