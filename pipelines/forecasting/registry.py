"""The registered model's versions and aliases: champion is what is in force, challenger what was trained last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

from pipelines.errors import UsageError
from pipelines.forecasting.promotion import Evidence

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
FORECAST_VERSION, AS_OF, COMPLETE, PROMOTED_AT = "forecast_version", "as_of", "complete", "promoted_at"


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of the registered model.

    Attributes:
        forecast_version: the rows of `gold/forecasts` that it made; None for a version registered by hand.
        evidence: its training's pooled backtest.
        complete: whether its forecasts passed the checks of publishing.
        promoted_at: when it was last made champion; None: never.
    """

    version: str
    run_id: str | None
    forecast_version: str | None
    as_of: date | None
    evidence: Evidence
    aliases: tuple[str, ...]
    complete: bool
    promoted_at: str | None


@dataclass(frozen=True)
class Registry:
    """Each method may raise whatever MLflow raises."""

    client: MlflowClient
    name: str

    def add(self, run_id: str, tags: Mapping[str, str]) -> str:
        """Register the model that the run has logged and make it challenger; returns the version."""
        if not self.client.search_registered_models(f"name = '{self.name}'"):
            self.client.create_registered_model(self.name)
        created = self.client.create_model_version(
            self.name, source=f"runs:/{run_id}/model", run_id=run_id, tags=dict(tags)
        )
        self.client.set_registered_model_alias(self.name, CHALLENGER, created.version)
        return str(created.version)

    def versions(self, limit: int = 200) -> list[RegisteredVersion]:
        """The newest versions, newest first; none where nothing was registered yet."""
        aliases = self._aliases()
        found = self.client.search_model_versions(
            f"name = '{self.name}'", max_results=limit, order_by=["version_number DESC"]
        )
        return [self._described(version, aliases) for version in found]

    def version(self, version: str) -> RegisteredVersion:
        """One version, by its number, its alias or the forecast version that it made.

        Raises:
            UsageError: there is none.
        """
        for candidate in self.versions():
            if version in {candidate.version, candidate.forecast_version, *candidate.aliases}:
                return candidate
        raise UsageError(f"{self.name} has no version {version}; `stockcast models list` shows those that there are")

    def champion(self) -> RegisteredVersion | None:
        """The version under the alias champion."""
        number = self._aliases().get(CHAMPION)
        return None if number is None else self._described(self.client.get_model_version(self.name, number), {})

    def make_champion(self, version: str, now: datetime) -> None:
        """Move the alias."""
        self.client.set_registered_model_alias(self.name, CHAMPION, version)
        self.tag(version, {PROMOTED_AT: now.isoformat(timespec="seconds")})

    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        for name, value in tags.items():
            self.client.set_model_version_tag(self.name, version, name, value)

    def _aliases(self) -> dict[str, str]:
        if not self.client.search_registered_models(f"name = '{self.name}'"):
            return {}
        return {alias: str(number) for alias, number in self.client.get_registered_model(self.name).aliases.items()}

    def _described(self, version: ModelVersion, aliases: Mapping[str, str]) -> RegisteredVersion:
        tags, number = version.tags, str(version.version)
        as_of = tags.get(AS_OF)
        metrics = self.client.get_run(version.run_id).data.metrics if version.run_id else {}
        return RegisteredVersion(
            version=number,
            run_id=version.run_id,
            forecast_version=tags.get(FORECAST_VERSION),
            as_of=None if as_of is None else date.fromisoformat(as_of),
            evidence=Evidence.of(metrics),
            aliases=tuple(sorted(alias for alias, target in aliases.items() if target == number)),
            complete=tags.get(COMPLETE) == "yes",
            promoted_at=tags.get(PROMOTED_AT),
        )
