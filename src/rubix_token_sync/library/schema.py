"""The tables of a target: their DDL, and bringing them up to date."""

from __future__ import annotations

from dataclasses import dataclass

from rubix_token_sync.library.configuration import Configuration
from rubix_token_sync.targets.base import SCHEMA_VERSION
from rubix_token_sync.targets.registry import open_target as open_store

__all__ = ["SchemaChange", "SchemaScript", "schema_script", "upgrade_schema"]


@dataclass(frozen=True)
class SchemaChange:
    """What `upgrade_schema` did."""

    target: str
    before: str | None
    """The version found; None where there were no tables."""
    version: str
    changed: bool


@dataclass(frozen=True)
class SchemaScript:
    """DDL for an empty database, for a DBA to read and run."""

    version: str
    ddl: str


def schema_script(configuration: Configuration) -> SchemaScript:
    """The DDL that makes the tables in an empty database of the target's kind; no connection."""
    store = open_store(configuration.target, configuration.target_options(read_only=True))
    try:
        return SchemaScript(SCHEMA_VERSION, store.schema_script())
    finally:
        store.close()


def upgrade_schema(configuration: Configuration) -> SchemaChange:
    """Create the tables, or bring older ones up to date in place; no row is lost.

    Raises:
        SchemaError: rights are missing, or the tables are newer than this program.
    """
    store = open_store(configuration.target, configuration.target_options())
    try:
        before = store.schema_version()
        changed = store.ensure_schema()
        return SchemaChange(store.place, before, SCHEMA_VERSION, changed)
    finally:
        store.close()
