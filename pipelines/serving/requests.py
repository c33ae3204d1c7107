"""What requests to the order API look like."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pipelines.contracts.events import IDENTIFIER
from pipelines.restocking.orders import STATES

LARGEST_PAGE = 500

Identifier = Annotated[str, StringConstraints(pattern=rf"^{IDENTIFIER.pattern}$")]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Quantity = Annotated[int, Field(ge=1, strict=True)]
State = Annotated[str, StringConstraints(pattern=f"^({'|'.join(STATES)})$")]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Approval(_Body):
    """Approve, possibly with another quantity."""

    quantity: Quantity | None = None
    reason: Reason | None = None


class Change(_Body):
    """Another quantity for a proposal, which goes on waiting."""

    quantity: Quantity
    reason: Reason


class Rejection(_Body):
    """Reject; the reason is kept."""

    reason: Reason


class NewOrder(_Body):
    """An order by hand."""

    location_id: Identifier
    sku: Identifier
    quantity: Quantity
    reason: Reason


class Rerouting(_Body):
    """Approve another way for a shipment."""

    option: Identifier
    reason: Reason


class Listing(_Body):
    """Which orders to list, newest first."""

    state: State | None = None
    location_id: Identifier | None = None
    sku: Identifier | None = None
    limit: int = Field(50, ge=1, le=LARGEST_PAGE)
    cursor: str | None = None

    @property
    def wanted(self) -> dict[str, Any]:
        """The columns that are asked for."""
        names = ("state", "location_id", "sku")
        return {name: value for name in names if (value := getattr(self, name)) is not None}
