"""`stockcast models`: which model is in force, putting another in force, going back."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import typer

from pipelines.errors import StockcastError
from pipelines.forecasting import releasing
from pipelines.forecasting.publishing import stored_versions
from pipelines.forecasting.registry import RegisteredVersion, Registry
from pipelines.io import published
from pipelines.io.delta import Tables
from pipelines.operations.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    settings_from,
    show_json,
    show_table,
    tell,
)
from pipelines.operations.settings import Settings

app = typer.Typer(help="Forecasting models: champion, challenger and the way back.", no_args_is_help=True)

Version = Annotated[str, typer.Argument(metavar="VERSION", help="Its number, its alias or its forecast version.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and leave everything as it is.")]
Result = TypeVar("Result")


@app.command("list")
def list_models(
    config: ConfigOption = None, overrides: SetOption = None, limit: int = 20, json: JsonOption = False
) -> None:
    """The newest versions, and which of them is in force."""
    settings = settings_from(config, overrides)
    rows = described(settings, Tables(settings), limit)
    if json:
        show_json(rows)
        return
    shown = ("version", "forecasts", "as_of", "WAPE", "naive", "bias", "coverage", "state")
    show_table(
        f"{len(rows)} versions of {settings.mlflow.registered_model}, newest first",
        list(shown),
        [
            [
                row["version"],
                row["forecast_version"],
                None if row["as_of"] is None else row["as_of"].isoformat(),
                *(_percent(row[name]) for name in ("wape", "baseline_wape", "bias", "coverage")),
                "\n".join(row["state"]),
            ]
            for row in rows
        ],
    )


@app.command()
def promote(
    version: Version,
    config: ConfigOption = None,
    overrides: SetOption = None,
    dry_run: DryRun = False,
    force: Annotated[bool, typer.Option("--force", help="Whatever the gates say.")] = False,
    json: JsonOption = False,
) -> None:
    """Judge a version and, if it passes, put its forecasts in force; exit code 1 where it is refused."""
    settings = settings_from(config, overrides)
    tables = Tables(settings)
    candidate, decision = _asked(
        settings,
        lambda registry: releasing.promote(
            settings, tables, registry, version, datetime.now(UTC), dry_run=dry_run, force=force
        ),
    )
    done = "would be put in force" if dry_run else "are in force; jobs/plan_inventory.py plans with them"
    told = done if decision.promoted else "are not put in force"
    why = f" ({decision.overruled})" if decision.overruled else ""
    text = f"the forecasts {candidate.forecast_version} of version {candidate.version} {told}{why}"
    document: dict[str, Any] = {
        "version": candidate.version,
        "forecast_version": candidate.forecast_version,
        "promoted": decision.promoted,
        "overruled": decision.overruled,
        "dry_run": dry_run,
        "verdicts": [str(verdict) for verdict in decision.verdicts],
    }
    tell("\n".join([*document["verdicts"], text]), document, json)
    raise typer.Exit(0 if decision.promoted else 1)


@app.command()
def rollback(
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="A version that was in force; none: the one before.")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    dry_run: DryRun = False,
    json: JsonOption = False,
) -> None:
    """Put the forecasts that were in force before in force again, and move the alias champion to their model.

    Exit code 1 where those forecasts are no longer stored: then the alias alone is moved.
    """
    settings = settings_from(config, overrides)
    tables, now = Tables(settings), datetime.now(UTC)
    back = releasing.find_rollback(tables, _forecast_version(settings, version))
    target, left = back.target, back.left
    document: dict[str, Any] = {
        "from": left.version,
        "to": target.version,
        "stored": back.stored,
        "dry_run": dry_run,
        "alias": None,
    }
    if dry_run:
        told = "would be in force again" if back.stored else "are no longer stored: only the alias would move"
        tell(f"now {left.version}; {target.version} (as of {target.as_of}) {told}", document, json)
        raise typer.Exit(0 if back.stored else 1)
    releasing.roll_back(settings, tables, back, now)
    if back.stored:
        text = (
            f"the forecasts {target.version} (as of {target.as_of}) are in force again instead of {left.version}; "
            "jobs/plan_inventory.py plans with them"
        )
    else:
        text = (
            f"the forecasts {target.version} are gone (only forecast.versions_kept are stored); {left.version} stay in "
            "force. jobs/train_forecasts.py makes new ones"
        )
    document["alias"] = _move_alias(settings, target.version, now)
    tell(f"{text}\n{document['alias']}", document, json)
    raise typer.Exit(0 if back.stored else 1)


def described(settings: Settings, tables: Tables, limit: int) -> list[dict[str, Any]]:
    """The newest versions as documents; `state` says of each whether it is in force, stored, complete."""
    pointer = published.in_force(tables, published.FORECASTS)
    stored = stored_versions(tables)
    versions = _asked(settings, lambda registry: registry.versions(limit))
    return [_described(version, pointer, stored) for version in versions]


def _described(version: RegisteredVersion, pointer: published.Published | None, stored: set[str]) -> dict[str, Any]:
    in_force = pointer is not None and version.forecast_version == pointer.version
    state = [*version.aliases]
    if in_force:
        state.append("in force")
    elif version.forecast_version not in stored:
        state.append("forecasts gone")
    if not version.complete:
        state.append("incomplete")
    return {
        "version": version.version,
        "forecast_version": version.forecast_version,
        "as_of": version.as_of,
        **vars(version.evidence),
        "run_id": version.run_id,
        "promoted_at": version.promoted_at,
        "state": state,
    }


def _forecast_version(settings: Settings, version: str | None) -> str | None:
    """A forecast version as it is; of a number or an alias, the one that it stands for."""
    if version is None or version.startswith("f-"):
        return version
    return _asked(settings, lambda registry: registry.version(version)).forecast_version or version


def _move_alias(settings: Settings, forecast_version: str, now: datetime) -> str:
    """Move the alias champion; says so, or why not."""
    try:
        found = _asked(settings, lambda registry: _champion(registry, forecast_version, now))
    except StockcastError as error:
        return f"the alias champion was not moved: {error}"
    return f"champion is version {found} now"


def _champion(registry: Registry, forecast_version: str, now: datetime) -> str:
    version = registry.version(forecast_version).version
    registry.make_champion(version, now)
    return version


def _asked(settings: Settings, question: Callable[[Registry], Result]) -> Result:
    """An answer of the registry; what goes wrong with MLflow in one line."""
    from pipelines.forecasting.tracking import connect, registry, tracking_uri

    try:
        return question(registry(settings, connect(settings)))
    except StockcastError:
        raise
    except Exception as error:  # MLflow may be away in many ways
        raise StockcastError(
            f"MLflow at {tracking_uri(settings)} does not answer ({type(error).__name__}: {error})"
        ) from error


def _percent(value: float) -> str | None:
    return None if math.isnan(value) else f"{value:.1%}"
