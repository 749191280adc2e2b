"""What a target cannot answer for: unread databases, unknown names."""

from __future__ import annotations

from collections.abc import Sequence

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.monitor.answers import at_one_moment
from rubix_token_sync.monitor.filters import Filters
from rubix_token_sync.monitor.problems import Problem
from rubix_token_sync.monitor.unread import list_unread, require_known
from rubix_token_sync.targets.sql.target import SqlTarget
from rubix_token_sync.text import storable

__all__ = ["GapReader"]


class GapReader:
    """The part of `TargetReader` that says how far its answers reach."""

    _store: SqlTarget

    def unread(self, *, sources: Sequence[str] = (), nodes: Sequence[str] = ()) -> list[Problem]:
        """What the last syncs could not read or did not reach: of that, answers may be old.

        A part of what `status` says, and cheaper to ask.
        """
        filters = Filters(sources=tuple(sources), nodes=tuple(nodes))
        return at_one_moment(self._store, lambda asked, now: list_unread(asked, filters, now))

    def unread_directories(self, *, sources: Sequence[str] = ()) -> list[Problem]:
        """Those of `unread` that belong to no database that is known."""
        return [one for one in self.unread(sources=sources) if one.db_path is None]

    def require_tables(self) -> None:
        """Refuse a target whose tables are no longer those of this program's version.

        They were when it was opened; somebody may have put another database in its place.

        Raises:
            SchemaError: they are missing, older or newer.
        """
        self._store.ensure_schema()

    @staticmethod
    def require_token(token_id: str) -> None:
        """Refuse what cannot be a token's id in any target.

        Raises:
            SettingsError: ``no_such_token``.
        """
        if not storable(token_id):
            raise SettingsError(
                "The target has no token with this id.",
                code="no_such_token",
                remedy="Give the whole id; it is not valid UTF-8.",
            )

    def require_known(self, *, sources: Sequence[str] = (), nodes: Sequence[str] = ()) -> None:
        """Refuse names of machines and nodes that the target does not know.

        Raises:
            SettingsError: ``no_such_source`` or ``no_such_node``.
        """
        if sources or nodes:
            at_one_moment(
                self._store,
                lambda asked, _now: require_known(asked, sources=sources, nodes=nodes),
            )
