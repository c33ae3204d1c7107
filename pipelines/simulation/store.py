"""The simulation's files under `home/simulation`: state between phases, manifest, true demand, catalog."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from pipelines.errors import UsageError
from pipelines.operations.settings import Settings
from pipelines.simulation.chain import write_catalog
from pipelines.simulation.demand import write_true_demand
from pipelines.simulation.manifest import Manifest
from pipelines.simulation.plan import Plan, moment
from pipelines.simulation.world import World


def folder(settings: Settings) -> Path:
    """Where the simulation keeps its files."""
    return settings.home_path / "simulation"


def catalog_folder(settings: Settings) -> Path:
    """The simulated chain's reference data, for `jobs/load_catalog.py --source`."""
    return folder(settings) / "catalog"


def true_demand_path(settings: Settings) -> Path:
    """Parquet: location_id, sku, hour, demand."""
    return folder(settings) / "true_demand.parquet"


def manifest_path(settings: Settings) -> Path:
    """JSON: the plan, what was sent by topic, and the stock at the end."""
    return folder(settings) / "manifest.json"


def state_path(settings: Settings) -> Path:
    """JSON: the world between two phases."""
    return folder(settings) / "state.json"


def prepare(settings: Settings, plan: Plan) -> Path:
    """Write the plan's catalog under `home` and return its folder."""
    write_catalog(catalog_folder(settings), plan)
    return catalog_folder(settings)


def load_world(settings: Settings, plan: Plan | None = None) -> World | None:
    """The world saved under `home`; None where there is none.

    Raises:
        UsageError: it belongs to another plan, or its file cannot be used.
    """
    path = state_path(settings)
    if not path.exists():
        return None
    try:
        world = World.from_dict(orjson.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path}: the simulation's state cannot be used ({error}); start a chain in a home of its own"
        ) from None
    if plan is not None and plan != world.plan:
        raise UsageError(
            f"{settings.home} already holds the chain of {_describe(world.plan)}, not {_describe(plan)}; "
            "leave these options away to go on with it, or choose another home for another chain"
        )
    return world


def saved_plan(settings: Settings) -> Plan | None:
    """The plan of the world saved under `home`; None where there is none."""
    world = load_world(settings)
    return None if world is None else world.plan


def save_world(settings: Settings, world: World) -> None:
    """Save the world and its manifest, each in one piece."""
    _replace(state_path(settings), world.as_dict())
    _replace(manifest_path(settings), describe_world(world))


def describe_world(world: World) -> dict[str, Any]:
    """The manifest file: `on_hand` is what all valid events before `simulated_until` add up to; of those,
    `unsent` are still held back in the state."""
    unsent = sum(message.event_at < world.now_ms for message in world.outbox.messages())
    return {
        "run": world.plan.run,
        "plan": {**world.plan.as_dict(), "start": world.plan.start.isoformat()},
        "simulated_until": moment(world.now_ms).isoformat(),
        "unsent": unsent,
        **world.manifest.as_dict(),
        "on_hand": world.on_hand(),
    }


def load_manifest(settings: Settings) -> Manifest:
    """What was sent so far.

    Raises:
        UsageError: nothing was simulated in this home.
    """
    path = manifest_path(settings)
    if not path.exists():
        raise UsageError(f"{path} does not exist; run `stockcast simulate` first")
    return Manifest.from_dict(orjson.loads(path.read_bytes()))


def save_true_demand(settings: Settings, world: World) -> None:
    """Write the true demand of everything simulated so far."""
    write_true_demand(true_demand_path(settings), world.model, world.plan.start_hour, world.hour)


def _replace(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(orjson.dumps(content))
    partial.replace(path)


def _describe(plan: Plan) -> str:
    return (
        f"seed {plan.seed}, {plan.stores} stores x {plan.products} products, "
        f"{plan.days} days up to {plan.cutoff}, faults {plan.faults}"
    )
