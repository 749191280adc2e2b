"""What the statements say that SQL Server needs to hear."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa

from rubix_token_sync.targets.sql.target import SqlTarget
from tests.targets.records_made import DATABASE


def test_keys_are_sought_as_what_they_are(store: SqlTarget) -> None:
    """The driver sends bytes as VARBINARY: the whole column would be converted to that, and
    each count would read the table instead of a piece of its index."""
    said: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        said.append(statement)

    sa.event.listen(store.engine, "before_cursor_execute", note)
    assert store.count_live([DATABASE])[DATABASE]["TokenRecords"] == 0
    store.failed_tokens(DATABASE)
    store.stray_records("vm1", [DATABASE])
    marks = sum(len(re.findall(r"record_key\]? (?:BETWEEN|IN|<|>|=)", text)) for text in said)
    assert marks >= 8
    bare = [text for text in said if re.search(r"(?<!CAST\()\?", text.replace("source_ip = ?", ""))]
    assert bare == []
