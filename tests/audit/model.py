"""Every rule once more, in plain Python over rows: slow, and easy to believe.

A rule gives (token of the finding) → (how bad it is, rows that it is seen in).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal

from tests.audit.fleets import Row, Sent

__all__ = ["MODELS", "Found", "Token"]

Token = tuple[str, str]
"""Kind and id."""
Found = dict[Token, tuple[int, set[tuple[str, str, str]]]]
"""Token → weight, and (role, node, token id) of each record."""

OWNING = {"0", "1", "2", "3", "5"}
BURNT = {"9", "16"}


def _live(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if not row.gone]


def _by_token(rows: Iterable[Row]) -> dict[Token, list[Row]]:
    found: dict[Token, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.kind, row.token_id].append(row)
    return found


def _holders(rows: Sequence[Row], token: Token) -> set[tuple[str, str, str]]:
    return {
        ("holder", row.node, row.token_id)
        for row in _live(rows)
        if (row.kind, row.token_id) == token
    }


def _each_token(rows: Sequence[Row], judge: Callable[[list[Row]], int]) -> Found:
    """Tokens for which ``judge`` is not 0."""
    return {
        token: (weight, _holders(rows, token))
        for token, held in _by_token(_live(rows)).items()
        if (weight := judge(held))
    }


def held_twice(rows: Sequence[Row]) -> Found:
    def owners(held: list[Row]) -> int:
        dids = {r.did for r in held if r.did and r.token_status in OWNING and r.kind != "contract"}
        return len(dids) if len(dids) > 1 else 0

    return _each_token(rows, owners)


def status_conflict(rows: Sequence[Row]) -> Found:
    def spendable(held: list[Row]) -> int:
        statuses = [r.token_status for r in held if r.kind != "contract"]
        return sum(s in OWNING for s in statuses) if BURNT.intersection(statuses) else 0

    return _each_token(rows, spendable)


def same_number_twice(rows: Sequence[Row]) -> Found:
    numbered: dict[tuple[int, int], list[Row]] = defaultdict(list)
    for row in _live(rows):
        if row.kind == "rbt" and row.level is not None and row.number is not None:
            numbered[row.level, row.number].append(row)
    found: Found = {}
    for group in numbered.values():
        ids = {row.token_id for row in group}
        if len(ids) > 1:
            for one in ids:
                seen = {("twin", row.node, row.token_id) for row in group}
                before = found.get(("rbt", one), (1, set()))[1]
                found["rbt", one] = 1, before | seen
    return found


def _value(text: str | None) -> Decimal | None:
    if text is None or len(text) > 25 or not re.fullmatch(r"[0-9]+(\.[0-9]*)?", text):
        return None
    return Decimal(text)


def _parts(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in _live(rows):
        if row.kind == "rbt" and row.parent:
            found[row.parent].append(row)
    return found


def _wholes(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in _live(rows):
        if row.kind == "rbt":
            found[row.token_id].append(row)
    return found


def _family(rows: Sequence[Row], parent: str) -> set[tuple[str, str, str]]:
    return {("parent", r.node, r.token_id) for r in _wholes(rows)[parent]} | {
        ("part", r.node, r.token_id) for r in _parts(rows)[parent]
    }


def parent_not_burnt(rows: Sequence[Row]) -> Found:
    found: Found = {}
    for parent, parts in _parts(rows).items():
        whole = [r for r in _wholes(rows)[parent] if r.token_status in OWNING | {"15", "16"}]
        if whole:
            weight = len({part.token_id for part in parts})
            found["rbt", parent] = weight, _family(rows, parent)
    return found


def _sums(rows: Sequence[Row]) -> Iterable[tuple[str, Decimal, Decimal, bool, bool]]:
    """Parent, its value, that of its parts, whether all of those are known, whether it is burnt."""
    for parent, parts in _parts(rows).items():
        whole = _wholes(rows)[parent]
        if not whole:
            continue
        own = [v for r in whole if (v := _value(r.value)) is not None]
        each: dict[str, list[Decimal | None]] = defaultdict(list)
        for part in parts:
            each[part.token_id].append(_value(part.value))
        known = [max(v for v in values if v is not None) for values in each.values()
                 if any(v is not None for v in values)]  # fmt: skip
        yield (
            parent,
            max(own) if own else Decimal(1),
            sum(known, Decimal()),
            len(known) == len(each),
            any(r.token_status == "9" for r in whole),
        )


def _weight(difference: Decimal) -> int:
    return int(min(difference, Decimal(9 * 10**13)) * 100_000)


def parts_exceed_parent(rows: Sequence[Row]) -> Found:
    return {
        ("rbt", parent): (_weight(worth - own), _family(rows, parent))
        for parent, own, worth, _, _ in _sums(rows)
        if worth > own
    }


def parts_missing(rows: Sequence[Row]) -> Found:
    return {
        ("rbt", parent): (_weight(own - worth), _family(rows, parent))
        for parent, own, worth, known, burnt in _sums(rows)
        if worth < own and known and burnt
    }


def _lacks(row: Row) -> bool:
    code = (row.error or "").partition(":")[0]
    return not row.fetched and code in ("damaged", "not_in_repository")


def missing_everywhere(rows: Sequence[Row]) -> Found:
    def without(held: list[Row]) -> int:
        if any(row.fetched for row in held):
            return 0
        return sum(_lacks(r) and r.token_status in OWNING and r.kind != "contract" for r in held)

    return _each_token(rows, without)


def content_at_risk(rows: Sequence[Row]) -> Found:
    def lost(held: list[Row]) -> int:
        if sum(row.fetched for row in held) != 1:
            return 0
        return sum(
            _lacks(r)
            and r.kind != "contract"
            and (r.token_status in OWNING or (r.error or "").startswith("damaged"))
            for r in held
        )

    return _each_token(rows, lost)


def flagged_by_node(rows: Sequence[Row]) -> Found:
    flags = {"11", "12", "13", "14"}
    return _each_token(
        rows, lambda held: sum(r.token_status in flags and r.kind != "contract" for r in held)
    )


_CHAINS = {
    "0": ("02 03 05 06", True), "2": ("04", True), "4": ("02", False), "5": ("11", True),
    "9": ("08", None), "16": ("13", True),
}  # fmt: skip


def row_against_chain(rows: Sequence[Row]) -> Found:
    def contradicts(row: Row) -> bool:
        if row.kind not in ("rbt", "ft") or row.block is None or row.chain_error is not None:
            return False
        if row.token_status not in _CHAINS:
            return False
        types, own = _CHAINS[row.token_status]
        known = row.did is not None and row.block_owner is not None
        other = known and own is not None and (row.did == row.block_owner) is not own
        return row.block not in types.split() or other

    return _each_token(rows, lambda held: sum(map(contradicts, held)))


def owner_unknown(rows: Sequence[Row]) -> Found:
    own: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.owns:
            own[row.node].add(row.owns)

    def unknown(row: Row) -> bool:
        dids = own[row.node]
        held = row.token_status in OWNING and row.kind != "contract"
        return bool(held and row.did and dids and row.did not in dids)

    return _each_token(rows, lambda held: sum(map(unknown, held)))


def spent_copy(rows: Sequence[Row]) -> Found:
    noted: dict[str, dict[str, Sent]] = defaultdict(dict)  # of two with one key the last stays
    for row in rows:
        noted[row.node] |= {sent.transaction: sent for sent in row.history}

    def away(row: Row, other: Row) -> bool:
        """The other row's transaction is one by which this row's DID sent the token away."""
        return other.transaction is not None and any(
            sent.sender == row.did != sent.receiver and sent.status != "0"
            for history in noted.values()
            for sent in history.values()
            if sent.transaction == other.transaction
        )

    def by_transaction(row: Row, other: Row) -> bool:
        if not away(row, other):
            return False
        if row.transaction == other.transaction:
            return True
        if row.transaction is None:
            return other.transaction not in noted[row.node]
        return any(
            row.transaction in history
            and other.transaction in history
            and history[row.transaction].day < history[other.transaction].day
            for history in noted.values()
        )

    def by_chain(row: Row, other: Row) -> bool:
        if None in (row.block, other.block, row.block_number, other.block_number):
            return False
        if row.chain_error is not None or other.chain_error is not None:
            return False
        longer = other.block_number > row.block_number  # type: ignore[operator]
        elsewhere = other.block_owner is not None and other.block_owner != row.did
        return longer and (other.block in ("08", "13") or (other.block == "02" and elsewhere))

    def copies(held: list[Row]) -> int:
        # Where there is a row, there is its chain, whether the row lives or not.
        chained = [o for o in rows if (o.kind, o.token_id) == (held[0].kind, held[0].token_id)]
        spendable = [
            row
            for row in held
            if row.did and row.token_status in OWNING and row.kind in ("rbt", "ft")
        ]
        return sum(
            any(by_transaction(row, o) for o in held) or any(by_chain(row, o) for o in chained)
            for row in spendable
        )

    return _each_token(rows, copies)


def chain_wrong(rows: Sequence[Row]) -> Found:
    def wrong(row: Row) -> bool:
        return row.block is not None and row.chain_error is not None

    return _each_token(rows, lambda held: sum(map(wrong, held)))


def _judged(verdict: str) -> Callable[[Sequence[Row]], Found]:
    return lambda rows: _each_token(rows, lambda held: sum(r.verdict == verdict for r in held))


MODELS: dict[str, Callable[[Sequence[Row]], Found]] = {
    "held_twice": held_twice,
    "status_conflict": status_conflict,
    "owner_unknown": owner_unknown,
    "spent_copy": spent_copy,
    "row_against_chain": row_against_chain,
    "chain_wrong": chain_wrong,
    "same_number_twice": same_number_twice,
    "parent_not_burnt": parent_not_burnt,
    "parts_exceed_parent": parts_exceed_parent,
    "parts_missing": parts_missing,
    "forged_form": _judged("forged_form"),
    "out_of_range": _judged("out_of_range"),
    "disputed_limit": _judged("disputed"),
    "signature_wrong": _judged("signature_wrong"),
    "missing_everywhere": missing_everywhere,
    "content_at_risk": content_at_risk,
    "flagged_by_node": flagged_by_node,
}
