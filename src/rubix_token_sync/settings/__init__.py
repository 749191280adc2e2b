"""The settings of a run: their names, defaults, limits, and where they come from.

A setting's strength: flag > environment > ``--config`` file > profile > default.
In the environment every setting has the name ``RUBIX_SYNC_<NAME>``; the guide's
six also their bare names (``BATCH_SIZE=…``), which are weaker.  An empty variable
counts as not set.  The file is TOML with the settings' names as keys, upper or
lower case; an unknown key is refused.

Each value remembers its origin, for `describe` and for errors.  Values that can
hold a secret are never shown: not in errors, not in `describe`, not by ``repr``.
"""

from __future__ import annotations

from rubix_token_sync.settings.load import PREFIX, load_settings, unknown_variables
from rubix_token_sync.settings.model import (
    GUIDE_NAMES,
    PROFILES,
    Settings,
    primary_address,
    usable_cpus,
)
from rubix_token_sync.settings.show import (
    Described,
    commented_settings_file,
    describe,
)

__all__ = [
    "GUIDE_NAMES",
    "PREFIX",
    "PROFILES",
    "Described",
    "Settings",
    "commented_settings_file",
    "describe",
    "load_settings",
    "primary_address",
    "unknown_variables",
    "usable_cpus",
]
