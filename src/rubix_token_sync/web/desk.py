"""Who asks the target: once for all viewers, and not again while the answer is young."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar, cast

import rubix_token_sync as rts
from rubix_token_sync.web.options import ServeOptions
from rubix_token_sync.web.query import Query

__all__ = ["Desk"]

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_YOUNG: Final = 2.0
"""Seconds for which an answer is given again without a question."""
_USABLE: Final = 20.0
"""Seconds for which it is given once more while a new one is on its way."""
_TIMES: Final = 20.0
_LONGEST_YOUNG: Final = 120.0
_LONG: Final = 0.1
"""Seconds from which on nobody should have to wait for an answer that was there before."""
_MOST_RENEWED: Final = 8
_STATUS_YOUNG: Final = 10.0
_NIGHTS_YOUNG: Final = 60.0
_MOST_ANSWERS: Final = 64
_MOST_WAIT: Final = 60.0


def _of_runs(key: Hashable) -> bool:
    """Progress of a run changes this answer."""
    name = key[0] if isinstance(key, tuple) else key
    return name in ("/fleet", "/runs", "/run", "running", "round")


def _of_findings(key: Hashable) -> bool:
    """A decision about a finding changes this answer."""
    return isinstance(key, tuple) and key[0] in ("/findings", "/finding", "/node")


@dataclass
class _Entry:
    """An answer, or one that is on its way."""

    ready: threading.Event
    asked_young: float
    """Seconds for which whoever asked wants it to be young, however little it took."""
    value: Any = None
    error: BaseException | None = None
    at: float = 0.0
    took: float = 0.0
    """Seconds that finding it out took."""
    question: Callable[[], Any] | None = None
    refreshing: bool = False
    outdated: bool = False
    """What it is about has changed since it was asked: for those alone who wait already."""

    @property
    def young(self) -> float:
        """Seconds for which it is given again."""
        return min(_LONGEST_YOUNG, max(self.asked_young, _TIMES * self.took))

    @property
    def usable(self) -> float:
        """Seconds for which it is given while the next is on its way; then it is worth nothing."""
        return max(_USABLE, 3 * self.young)


class Desk:
    """The target, for reading, and the answers that are still good.

    A question that is under way is waited for, not asked twice.  An answer that is no longer
    young is given once more while the next one is on its way: each page says how old it is.
    """

    def __init__(
        self,
        configuration: rts.Configuration,
        reader: rts.TargetReader,
        options: ServeOptions,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.configuration, self.reader, self.options = configuration, reader, options
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: OrderedDict[Hashable, _Entry] = OrderedDict()
        self.questions = 0
        """How often the target was asked."""

    @property
    def max_age(self) -> timedelta | None:
        """The age at which nodes are overdue, by the settings."""
        hours = self.configuration.settings.alert_max_age_hours
        return None if hours is None else timedelta(hours=hours)

    def ask(
        self,
        key: Hashable,
        question: Callable[[], T],
        *,
        young: float = _YOUNG,
        once_more: bool = True,
    ) -> T:
        """The answer to a question, whose ``key`` names it with all of its parameters.

        ``young`` is for how many seconds it is given again; what takes long to find out is
        given again longer, so that viewers cost the target a twentieth of its time at most.

        ``once_more``: an answer that is no longer young is given while the next is on its way.

        Raises:
            SyncError: the target's, or what the question was refused for.
        """
        now = self._clock()
        with self._lock:
            entry = self._answers.get(key)
            if entry is not None:
                self._answers.move_to_end(key)  # the least recently asked is first
            if entry is not None and entry.outdated:
                entry = None
            if entry is not None and entry.ready.is_set() and entry.error is None:
                age = now - entry.at
                usable = entry.usable if once_more else entry.young
                if age < entry.young or (age < usable and entry.refreshing):
                    return cast("T", entry.value)
                if age < usable:
                    entry.refreshing = True
                    threading.Thread(
                        target=self._refresh, args=(key, entry, question), daemon=True
                    ).start()
                    return cast("T", entry.value)
            waiting = entry is not None and not entry.ready.is_set()
            if not waiting:
                entry = _Entry(threading.Event(), young)
                self._answers[key] = entry
                self._answers.move_to_end(key)
                self._make_room(now)
        assert entry is not None
        if waiting:
            if not entry.ready.wait(_MOST_WAIT):
                raise rts.SettingsError(
                    f"The target has not answered for {_MOST_WAIT:.0f} s.",
                    code="web_busy",
                    remedy="Try again in a minute; `rubix-token-sync check` says how it is.",
                )
        else:
            self._answer(entry, question)
        if entry.error is not None:
            raise entry.error
        return cast("T", entry.value)

    def _make_room(self, now: float) -> None:
        """Drop the least recently asked answers while there are too many or they are too old."""
        while len(self._answers) > 1:
            key, oldest = next(iter(self._answers.items()))
            worthless = oldest.ready.is_set() and now - oldest.at > oldest.usable
            if not worthless and len(self._answers) <= _MOST_ANSWERS:
                return
            del self._answers[key]

    def forget(self, *, only_runs: bool = False, decided: bool = False) -> None:
        """Ask anew what is known to be old: everything, or what progress of runs changes.

        What took long stays until `renew` has a new answer, but for findings that somebody
        has just ``decided`` about.
        """
        with self._lock:
            for key, entry in list(self._answers.items()):
                if only_runs and not _of_runs(key):
                    continue
                if not entry.ready.is_set():
                    entry.outdated = True
                elif entry.took < _LONG or (decided and _of_findings(key)):
                    del self._answers[key]

    def renew(self) -> None:
        """Ask again what takes long and was asked last, in this thread; forget the rest of it."""
        with self._lock:
            slow = [
                (key, entry)
                for key, entry in reversed(self._answers.items())
                if entry.ready.is_set() and entry.took >= _LONG
            ]
            for key, _ in slow[_MOST_RENEWED:]:
                del self._answers[key]
        for key, entry in slow[:_MOST_RENEWED]:
            if entry.question is not None:
                self._refresh(key, entry, entry.question)

    def _answer(self, entry: _Entry, question: Callable[[], Any]) -> None:
        began = self._clock()
        try:
            self.questions += 1
            entry.question = question
            entry.value = question()
        except BaseException as error:
            entry.error = error
            raise
        finally:
            entry.at = self._clock()
            entry.took = entry.at - began
            entry.ready.set()

    def _refresh(self, key: Hashable, old: _Entry, question: Callable[[], Any]) -> None:
        """In a thread of its own; meanwhile the old answer is given.

        It is not given again where the target no longer answers: nobody knows whether it holds.
        """
        fresh = _Entry(threading.Event(), old.asked_young)
        try:
            self._answer(fresh, question)
        except Exception as error:  # noqa: BLE001 - whoever asks next hears of it
            _LOG.debug("A question failed: %s", error)
        with self._lock:
            old.refreshing = False
            if self._answers.get(key) is old:
                if fresh.error is None:
                    self._answers[key] = fresh
                else:
                    del self._answers[key]

    def status(self) -> rts.Status:
        """How everything stands; the runs under way as they are now, the rest 10 s old at most."""
        status = self.known()
        runs = self.ask("running", lambda: self.reader.sessions(statuses=["RUNNING"], limit=200))
        return replace(status, running=runs)

    def round(self) -> rts.Round | None:
        """What machines do at the same time, now."""
        return self.ask("round", self.reader.current_round)

    def require_known(self, query: Query) -> None:
        """Refuse machines and nodes that the target does not know, wherever a view takes them.

        Raises:
            SettingsError: ``no_such_source`` or ``no_such_node``.
        """
        sources, nodes = tuple(query.texts("source")), tuple(query.texts("node"))
        if sources or nodes:
            self.ask(
                ("known", sources, nodes),
                lambda: self.reader.require_known(sources=sources, nodes=nodes),
                young=_STATUS_YOUNG,
            )

    def unread(self, query: Query) -> str | None:
        """What an answer about these machines and nodes cannot speak for; None: it can for all."""
        sources, nodes = tuple(query.texts("source")), tuple(query.texts("node"))
        found = self.ask(
            ("unread", sources, nodes),
            lambda: self.reader.unread(sources=sources, nodes=nodes),
            young=_STATUS_YOUNG,
        )
        return rts.unread_note(found)

    def last_audit(self) -> rts.AuditRow | None:
        """The newest audit; None: there was none yet."""
        audits = self.ask("audits", lambda: self.reader.audits(limit=1))
        return audits[0] if audits else None

    def _status(self) -> rts.Status:
        self.reader.require_tables()
        return self.reader.status(max_age=self.max_age)

    def known(self) -> rts.Status:
        """How everything stands, as of its ``server_time``: the answer that all views share."""
        return self.ask("status", self._status, young=_STATUS_YOUNG)

    def failures(
        self, since: timedelta | None = None, *, by_node: bool = True
    ) -> rts.FailureCounts:
        """What failed since then, as of its ``at``: one question for whatever is asked of it."""

        def question() -> rts.FailureCounts:
            self.reader.require_tables()
            return self.reader.failure_counts(since=since, by_node=by_node)

        return self.ask(("failures", since, by_node), question, young=_STATUS_YOUNG)

    def nights(self) -> list[rts.Night]:
        """Days of runs."""
        return self.ask("nights", self.reader.nights, young=_NIGHTS_YOUNG)

    def pulse(self) -> dict[str, Any]:
        """What tells a page that something is new: which runs, how far, and the last audit."""

        def question() -> dict[str, Any]:
            self.reader.require_tables()
            under_way = self.reader.sessions(statuses=["RUNNING"], limit=200)
            runs = {run.session_id: run for run in [*self.reader.sessions(limit=30), *under_way]}
            audits = self.reader.audits(limit=1)
            return {
                "runs": [
                    [run.session_id, run.status, run.stuck, run.heartbeat_at, run.progress_percent]
                    for run in runs.values()
                ],
                "fleet": [[run.session_id, run.status, run.stuck] for run in runs.values()],
                "findings": [audits[0].number] if audits else [],
            }

        return self.ask("pulse", question)

    def require_target(self) -> None:
        """Whether the target answers, and is still one of ours.

        Raises:
            TargetError: it does not, or is not.
        """
        self.ask("health", self.reader.require_tables, once_more=False)

    def server_time(self) -> datetime:
        """The target's clock, not asked more often than anything else."""
        return self.ask("time", self.reader.server_time)
