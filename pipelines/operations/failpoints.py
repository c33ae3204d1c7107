"""Named points at which a test may make the process die, as power loss would: `STOCKCAST_FAILPOINT=name[:n]`."""

from __future__ import annotations

import os
import signal

_name, _, _count = os.environ.get("STOCKCAST_FAILPOINT", "").partition(":")
_remaining = int(_count or 1)


def failpoint(name: str) -> None:
    """Kill this process with SIGKILL when it passes the named point for the n-th time; otherwise nothing."""
    global _remaining  # noqa: PLW0603  (one countdown per process)
    if name != _name:
        return
    _remaining -= 1
    if _remaining <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
