"""The directory of files that belong to a user and a machine rather than to a store: logs, and catalogs of stores that
are only read."""

from __future__ import annotations

import os
from pathlib import Path


def state_directory() -> Path:
    """The directory of the running user, as the XDG base directory specification has it. It need not exist."""
    configured = os.environ.get("XDG_STATE_HOME", "")
    base = Path(configured) if os.path.isabs(configured) else Path.home() / ".local" / "state"
    return base / "volfs"
