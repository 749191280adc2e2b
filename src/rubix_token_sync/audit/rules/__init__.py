"""Every rule there is, one file each; a new one is a file and a line here."""

from __future__ import annotations

from typing import Final

from rubix_token_sync.audit.rule import Rule
from rubix_token_sync.audit.rules import (
    chain_wrong,
    content_at_risk,
    disputed_limit,
    flagged_by_node,
    forged_form,
    held_twice,
    missing_everywhere,
    out_of_range,
    owner_unknown,
    parent_not_burnt,
    parts_exceed_parent,
    parts_missing,
    row_against_chain,
    same_number_twice,
    signature_wrong,
    spent_copy,
    status_conflict,
)

__all__ = ["RULES"]

RULES: Final[tuple[Rule, ...]] = (
    held_twice.RULE,
    spent_copy.RULE,
    status_conflict.RULE,
    owner_unknown.RULE,
    row_against_chain.RULE,
    chain_wrong.RULE,
    same_number_twice.RULE,
    parent_not_burnt.RULE,
    parts_exceed_parent.RULE,
    parts_missing.RULE,
    forged_form.RULE,
    out_of_range.RULE,
    disputed_limit.RULE,
    signature_wrong.RULE,
    missing_everywhere.RULE,
    content_at_risk.RULE,
    flagged_by_node.RULE,
)
"""In the order in which they run and are listed."""
