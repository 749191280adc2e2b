"""A part or test token whose signature is not its creator's."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.holders import tokens_with_verdict
from rubix_token_sync.audit.rule import StatementRule
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["RULE"]


def _statement(tables: Tables) -> sa.Select[Any]:
    return tokens_with_verdict(tables, "signature_wrong")


RULE: Final = StatementRule(
    code="signature_wrong",
    severity="error",
    says="the signature of the token's content is not its creator's",
    means="The content names its creator, and the signature in it does not match the public key of "
    "that DID. A token whose creator's key is not available is not listed.",
    cause="the content was fabricated or changed, or the DID's key files were replaced",
    cure="Compare the creator's public key with another node's copy of it; then take the token up "
    "with whoever paid with it.",
    compares_nodes=False,
    statement=_statement,
)
