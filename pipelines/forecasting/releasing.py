"""What goes into force: a new version judged, the switch, and the way back.

The pointer row in `gold/published` says what is in force; MLflow's alias champion follows it. So forecasts are
published, judged and rolled back whether or not MLflow answers.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import date, datetime

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from pipelines.contracts.tables import PUBLISHED
from pipelines.errors import MissingDataError, OwnershipError, UsageError
from pipelines.forecasting.backtests import compare_stored
from pipelines.forecasting.promotion import Champion, Decision, Evidence, decide
from pipelines.forecasting.publishing import stored_versions
from pipelines.forecasting.registry import RegisteredVersion, Registry
from pipelines.io import published
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.io.published import Published
from pipelines.operations.settings import PromotionSettings, Settings

log = logging.getLogger("stockcast.forecasting")

PATIENCE_SECONDS = 120.0
UNSCORED = Evidence(float("nan"), float("nan"), float("nan"), float("nan"))


def judge(
    tables: Tables,
    settings: PromotionSettings,
    version: str,
    as_of: date,
    evidence: Evidence,
    registry: Registry | None,
) -> Decision:
    """Hold a stored version against the one in force.

    Args:
        evidence: the pooled scores of its own backtest.
        registry: to look up the scores of the one in force; None: without them, where no days are in common.
    """
    pointer = published.in_force(tables, published.FORECASTS)
    if pointer is None:
        return decide(evidence, as_of, None, settings)
    champion = Champion(
        forecast_version=pointer.version,
        as_of=pointer.as_of,
        evidence=_evidence(registry, pointer),
        comparison=compare_stored(tables, pointer.version, version),
    )
    return decide(evidence, as_of, champion, settings)


def put_in_force(settings: Settings, tables: Tables, pointer: Published) -> None:
    """Switch the pointer, waiting a while for another job that is just switching its own.

    Raises:
        OwnershipError: the other one did not end.
    """
    for attempt in Retrying(
        retry=retry_if_exception_type(OwnershipError),
        stop=stop_after_delay(PATIENCE_SECONDS),
        wait=wait_fixed(1.0),
        reraise=True,
    ):
        with attempt, ownership(settings, PUBLISHED.owner):
            published.publish(tables, pointer)


def promote(
    settings: Settings, tables: Tables, registry: Registry, version: str, now: datetime, *, dry_run: bool, force: bool
) -> tuple[RegisteredVersion, Decision]:
    """Judge a registered version again and, where it is promoted, put its forecasts in force and move the alias.

    Args:
        version: its number, alias or forecast version.
        dry_run: judge only.
        force: promote it whatever the gates say.

    Raises:
        UsageError: no such version, it is in force already, or its forecasts never passed the checks.
        MissingDataError: its forecasts are no longer stored.
    """
    candidate = registry.version(version)
    name, as_of = candidate.forecast_version, candidate.as_of
    if name is None or as_of is None or not candidate.complete:
        raise UsageError(
            f"version {candidate.version} has no forecasts that passed the checks of publishing; choose another of "
            "`stockcast models list`, or train again"
        )
    pointer = published.in_force(tables, published.FORECASTS)
    if pointer is not None and pointer.version == name:
        raise UsageError(f"the forecasts of version {candidate.version} ({name}) are in force already")
    if name not in stored_versions(tables):
        raise MissingDataError(f"the forecasts {name} of version {candidate.version} are no longer stored; train again")
    decision = judge(tables, settings.promotion, name, as_of, candidate.evidence, registry)
    if force and not decision.promoted:
        decision = Decision(decision.verdicts, "by hand")
    if decision.promoted and not dry_run:
        put_in_force(settings, tables, Published(published.FORECASTS, name, as_of, candidate.run_id, now))
        registry.make_champion(candidate.version, now)
        registry.tag(candidate.version, decision.tags())
    return candidate, decision


@dataclass(frozen=True)
class Rollback:
    """What going back would do, or did.

    Attributes:
        target: what was in force before and shall be again.
        left: what is in force now.
        stored: whether the target's forecasts are still there; if not, `left` stays in force.
    """

    target: Published
    left: Published
    stored: bool


def find_rollback(tables: Tables, version: str | None) -> Rollback:
    """The way back to a forecast version that was in force once; None: to the one before the present one.

    Raises:
        UsageError: there is none.
    """
    history = published.history(tables, published.FORECASTS)
    left = published.in_force(tables, published.FORECASTS)
    if left is None:
        raise UsageError("no forecasts are in force: there is nothing to roll back")
    names = [entry.version for entry in history]
    if version is None:
        first = names.index(left.version) if left.version in names else len(names)
        earlier = history[:first]
    else:
        earlier = [entry for entry in history if entry.version == version and version != left.version]
    if not earlier:
        wanted = "no earlier forecasts were" if version is None else f"{version} was never, or is now,"
        raise UsageError(f"{wanted} in force; in force were: {', '.join(dict.fromkeys(names)) or 'none'}")
    return Rollback(earlier[-1], left, earlier[-1].version in stored_versions(tables))


def roll_back(settings: Settings, tables: Tables, back: Rollback, now: datetime) -> None:
    """Put the target's forecasts in force again, if they are stored."""
    if not back.stored:
        return
    target = back.target
    put_in_force(settings, tables, Published(target.artefact, target.version, target.as_of, target.training_run, now))
    log.warning("rolled back from %s: forecasts %s are in force again", back.left.version, target.version)


def _evidence(registry: Registry | None, pointer: Published) -> Evidence:
    if registry is None or pointer.training_run is None:
        return UNSCORED
    try:
        return Evidence.of(registry.client.get_run(pointer.training_run).data.metrics)
    except Exception as error:  # MLflow may be away in many ways; a decision is possible without it
        log.warning("MLflow does not tell the scores of %s (%s)", pointer.version, type(error).__name__)
        return UNSCORED
