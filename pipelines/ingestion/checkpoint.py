"""The ingest query's checkpoint: whether it can be relied on, and setting it aside.

Without a checkpoint the stream goes on after what the tables hold, so setting it aside loses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from pipelines.errors import CheckpointError, UsageError
from pipelines.io.delta import local_path
from pipelines.operations.settings import Settings

RESTART = "stockcast ingest restart-checkpoint"


class Checkpoint:
    """The folder in which Spark keeps how far the ingest query has come."""

    def __init__(self, settings: Settings) -> None:
        self.uri = settings.under_home("checkpoints", "ingest")
        # On a remote store Spark's own checks have to do.
        self._path = local_path(self.uri)

    @property
    def empty(self) -> bool:
        """Whether the query begins anew."""
        return not self._numbered("offsets")

    def check(self, topics: Collection[str]) -> None:
        """Refuse a checkpoint that Spark would misread or stumble over.

        Args:
            topics: which the query reads.

        Raises:
            CheckpointError: says what is wrong and what to do.
        """
        if self._path is None:
            return
        offsets = self._numbered("offsets")
        metadata = self._path / "metadata"
        if not offsets:
            if metadata.exists() and not self._json(metadata, "id"):
                raise self._error("its metadata file is damaged")
            return
        if not self._json(metadata, "id"):
            raise self._error(f"its metadata file is {'damaged' if metadata.exists() else 'missing'}")
        for path in offsets[-2:]:
            found = self._source_offsets(path)
            if others := sorted(set(found) - set(topics)):
                raise self._error(f"it belongs to another query ({path.name} reads {', '.join(others[:3])})")
        for path in self._numbered("commits")[-1:]:
            if not path.read_text(errors="replace").startswith("v"):
                raise self._error(f"commits/{path.name} is damaged")

    def set_aside(self, now: datetime) -> Path | None:
        """Move the checkpoint away; returns where it lies now, None where there was none.

        Raises:
            UsageError: it is on a remote store.
        """
        if self._path is None:
            raise UsageError(f"{self.uri} is on a remote store: move it away with the store's own tools")
        if not self._path.exists():
            return None
        target = self._path.with_name(f"{self._path.name}.{now:%Y%m%dT%H%M%S%f}")
        return self._path.rename(target)

    def _numbered(self, folder: str) -> list[Path]:
        if self._path is None:
            return []
        return sorted(
            (path for path in (self._path / folder).glob("[0-9]*") if path.name.isdigit()), key=lambda p: int(p.name)
        )

    def _source_offsets(self, path: Path) -> dict[str, object]:
        """The Kafka offsets in an offsets file: a version, the query's own figures, and a line a source."""
        lines = path.read_text(errors="replace").splitlines()
        try:
            if len(lines) < 3 or not lines[0].startswith("v"):
                raise ValueError
            documents = [json.loads(line) for line in lines[1:]]
            if len(documents) != 2 or not all(isinstance(document, dict) for document in documents):
                raise self._error(f"it belongs to another query (offsets/{path.name} has {len(documents) - 1} sources)")
            found: dict[str, object] = documents[1]
            if not all(isinstance(places, dict) for places in found.values()):
                raise self._error(f"it belongs to another query (offsets/{path.name} holds no Kafka offsets)")
            return found
        except ValueError:
            raise self._error(f"offsets/{path.name} is damaged") from None

    @staticmethod
    def _json(path: Path, key: str) -> bool:
        try:
            return bool(json.loads(path.read_text())[key])
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _error(self, what: str) -> CheckpointError:
        return checkpoint_error(self.uri, what)


def checkpoint_error(uri: str, what: str) -> CheckpointError:
    """The one line that says what happened and what to do."""
    return CheckpointError(
        f"the checkpoint {uri} cannot be relied on: {what}. Nothing is lost: `{RESTART}` sets it aside, and reading "
        "goes on after what the tables hold"
    )
