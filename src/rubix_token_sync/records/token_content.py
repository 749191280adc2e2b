"""What a token's verified content says of the token, and where the node's row says otherwise.

`decode_contents` takes the contents of rows of one kind and gives for each what is
decoded from it, as a dictionary of plain JSON values, and the findings where row and
content disagree.  Formats (rubixgoplatform v0.0.20, seen on real nodes)::

    rbt       level and sha256 of the number (whole token: nothing is decoded), or
              hexadecimal RAC (part and test token), or
              ``Faucet Name : X, Token Level : N, Token Number : M``
    ft        ``NAME NUMBER CREATOR``; the name may hold spaces
    nft       JSON {DID, ArtifactHash}; earlier versions: hexadecimal RAC
    data      hexadecimal RAC
    contract  JSON {binaryCodeHash, rawCodeHash, schemaCodeHash, did}

A content was hashed, so it is what its id names; but whoever made it chose the words.
Texts are cut to `TEXT_LIMIT`, lists to `FILES_LIMIT` entries, and what is not clean text
is written as a blob literal, as everywhere (`rubix_token_sync.records.values`).

A content of RBT in no known form is not wrong: older software may have written it.  Nor
is a whole token in whose row a parent stands: its content says nothing of parents.

Everything here is a pure function.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeAlias

from rubix_token_sync.ipfs.content import Failure
from rubix_token_sync.records.kinds import TREE_KINDS
from rubix_token_sync.records.rac import RacContent, decode_rac
from rubix_token_sync.records.schema import SqliteValue
from rubix_token_sync.records.validate import Code, Finding
from rubix_token_sync.records.values import cut, real_text, to_text

__all__ = [
    "FILES_LIMIT",
    "TEXT_LIMIT",
    "TREES",
    "Attributes",
    "NamedTrees",
    "NumberedJson",
    "attributes_json",
    "decode_contents",
    "named_trees",
    "stored_trees",
]

Attributes: TypeAlias = dict[str, Any]
"""Texts, whole numbers and one level of dictionaries of texts: what JSON can hold."""

TEXT_LIMIT: Final = 1000
"""A decoded text is cut to this many UTF-16 code units."""

TREES: Final = "trees"
"""The key of ``attributes`` under which stands what is proven of these."""

FILES_LIMIT: Final = 64
"""Files of a data token that are listed; ``files_left_out`` counts the others."""

_SHOWN: Final = 100  # characters of a value in a message
_FIELD: Final = "ipfs_data"

_WHOLE: Final = re.compile(rb"[0-9]{2,3}[0-9a-f]{64}\n?")
_FAUCET: Final = re.compile(
    rb"Faucet Name : (.*), Token Level : ([0-9]{1,9}), Token Number : ([0-9]{1,18})\n?", re.DOTALL
)
_FT_NUMBER: Final = "ft_number"
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_BEYOND: Final = Decimal("Infinity")
_CODE_HASHES: Final = {
    "binary_code_hash": "binaryCodeHash",
    "raw_code_hash": "rawCodeHash",
    "schema_code_hash": "schemaCodeHash",
}
_KIND_NAMES: Final = {
    "ft": "a fungible token",
    "nft": "an NFT",
    "data": "a data token",
    "contract": "a smart contract",
}

Columns: TypeAlias = Mapping[str, Sequence[SqliteValue]]
_Decoded: TypeAlias = tuple[Attributes | None, list[Finding]]


def decode_contents(
    kind: str, columns: Columns, contents: Sequence[bytes | None]
) -> tuple[list[Attributes | None], dict[int, list[Finding]]]:
    """What the contents of some rows say, and the findings by the rows' positions.

    Args:
        kind: of all rows: ``rbt``, ``ft``, ``nft``, ``data`` or ``contract``.
        columns: the rows' values as SQLite has them, by the names of the node's columns:
            ``parent_token_id`` and ``token_value`` (rbt), ``ft_name`` and ``creator_did``
            (ft), ``binary_code_hash``, ``raw_code_hash`` and ``schema_code_hash``
            (contract).  Others are not looked at; one that is missing is not compared.
        contents: verified content; None where there is none.

    Returns:
        One dictionary a row, None where there is no content, where it is a whole token's
        or in no known form;
        and findings (`Code`), only for rows that have any.  NULL in a row is not compared.
        About 1 µs for a whole or a fungible token, 10 µs for a part token.

    Raises:
        KeyError: there is no such kind.
    """
    if kind == "rbt":
        return _rbt(columns, contents)
    decode = _FungibleTokens(columns) if kind == "ft" else _DECODERS[kind]
    attributes: list[Attributes | None] = []
    found: dict[int, list[Finding]] = {}
    for index, content in enumerate(contents):
        if content is None:
            attributes.append(None)
            continue
        decoded, findings = decode(columns, index, content)
        if decoded is None:
            message = f"is not the content of {_KIND_NAMES[kind]}"
            findings = [Finding(Code.CONTENT_NOT_OF_KIND, _FIELD, message)]
        attributes.append(decoded)
        if findings:
            found[index] = findings
    return attributes, found


def attributes_json(attributes: Mapping[str, Any]) -> str:
    """Attributes as compact JSON; scripts stand as they are."""
    return _to_json(attributes)


@dataclass(frozen=True, slots=True)
class NamedTrees:
    """What became of the files and directories that one token's content names.

    Attributes:
        proven: by what they are (the names of `named_trees`), what is said of those whose
            every block was verified: what ``attributes`` holds under `TREES`.
        failure: why not all of them are proven.
    """

    proven: dict[str, Attributes] = field(default_factory=dict)
    failure: Failure | None = None


def named_trees(kind: str, content: bytes) -> dict[str, str]:
    """Ids of files and directories that a content names, by what they are.

    An NFT's artifact, a contract's files: hostile text until it has parsed as a CID.
    """
    if kind not in TREE_KINDS:
        return {}
    (decoded,), _ = decode_contents(kind, {}, [content])
    names = ("artifact_hash", *_CODE_HASHES)
    return {name: decoded[name] for name in names if name in decoded} if decoded else {}


def stored_trees(attributes: str | None) -> dict[str, Attributes]:
    """What stored ``attributes`` say is proven; nothing where they are not as a sync wrote them."""
    try:
        found = json.loads(attributes or "{}")[TREES]
    except (ValueError, RecursionError, KeyError, TypeError):
        return {}
    if not isinstance(found, dict) or not all(isinstance(said, dict) for said in found.values()):
        return {}
    return found


# --- RBT ---------------------------------------------------------------------


def _rbt(
    columns: Columns, contents: Sequence[bytes | None]
) -> tuple[list[Attributes | None], dict[int, list[Finding]]]:
    attributes: list[Attributes | None] = []
    found: dict[int, list[Finding]] = {}
    is_whole, append = _WHOLE.fullmatch, attributes.append
    for index, content in enumerate(contents):
        if content is None:
            append(None)
            continue
        if is_whole(content):
            append(None)  # level and hash: that is the content itself
            continue
        rac = decode_rac(content)
        if rac is None:
            append(_faucet(content))
            continue
        append(_signed(rac))
        findings = _of_part(columns, index, rac)
        if findings:
            found[index] = findings
    return attributes, found


def _faucet(content: bytes) -> Attributes | None:
    match = _FAUCET.fullmatch(content)
    name = _decoded(match[1]) if match else None
    if match is None or name is None:
        return None
    return {"faucet_name": _text(name), "level": int(match[2]), "number": int(match[3])}


def _signed(rac: RacContent) -> Attributes:
    out: Attributes = {"type": rac.type, "creator_did": _text(rac.creator_did)}
    if rac.part is not None:
        out["parent"] = _text(rac.part.parent)
        out["part_number"] = rac.part.number
        out["value"] = real_text(rac.part.value)
    if rac.signature:
        out["signature"] = rac.signature.hex()
    return out


def _of_part(columns: Columns, index: int, rac: RacContent) -> list[Finding]:
    findings = []
    parent = _value(columns, "parent_token_id", index)
    if parent is not None and parent != (rac.parent or ""):
        findings += _parent(parent, rac.parent or "")
    value = _value(columns, "token_value", index)
    # Equal as the binary numbers that they are, or as the decimal ones that they stand for.
    if rac.value is not None and value != rac.value:
        number = _decimal(value)
        if number is not None and number != Decimal(repr(rac.value)):
            message = f"says the value {real_text(rac.value)}, the row says {_shown(value)}"
            findings.append(Finding(Code.TOKEN_VALUE_DIFFERS, _FIELD, message))
    return findings


def _parent(of_row: SqliteValue, of_content: str) -> list[Finding]:
    says = f"names the parent {_shown(of_content)}" if of_content else "names no parent"
    message = f"{says}, the row names {_shown(of_row)}"
    return [Finding(Code.PARENT_DIFFERS, _FIELD, message)]


def _decimal(value: SqliteValue) -> Decimal | None:
    """A number as SQLite holds it, exactly; None for what is not one (flagged elsewhere)."""
    if isinstance(value, float):
        value = repr(value)
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, str) and len(value) <= TEXT_LIMIT and _NUMBER.fullmatch(value):
        try:
            return Decimal(value)
        except InvalidOperation:  # an exponent beyond all numbers
            return _BEYOND
    return None


# --- FT ----------------------------------------------------------------------


class _FungibleTokens:
    """Decodes contents of which many differ in the number only: the rest is judged once."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        rows = [columns[name] for name in ("ft_name", "creator_did") if name in columns]
        self._rows = list(zip(*rows, strict=True)) if rows else None
        self._texts_only = all(set(map(type, values)) <= {str, type(None)} for values in rows)
        self._known: dict[tuple[object, ...], tuple[str, str, list[Finding]] | None] = {}

    def __call__(self, _columns: Columns, index: int, content: bytes) -> _Decoded:
        parts = content.rsplit(b" ", 2)
        if len(parts) != 3 or not parts[1].isdigit() or len(parts[1]) > 18 or not parts[2]:
            return None, []
        name, number, creator = parts
        of_row: tuple[object, ...] = () if self._rows is None else self._rows[index]
        if not self._texts_only:
            of_row = (*of_row, *map(type, of_row))  # 1 and 1.0 are one key, not one text
        key = (name, creator, of_row)
        if key not in self._known:
            self._known[key] = self._judged(index, name, creator)
        known = self._known[key]
        if known is None:
            return None, []
        shown_name, shown_creator, findings = known
        return {
            "ft_name": shown_name, _FT_NUMBER: int(number), "creator_did": shown_creator,
        }, findings  # fmt: skip

    def _judged(
        self, index: int, name: bytes, creator: bytes
    ) -> tuple[str, str, list[Finding]] | None:
        says_name, says_creator = _decoded(name), _decoded(creator)
        if says_name is None or says_creator is None:
            return None
        says_creator = says_creator.removesuffix("\n")
        findings = _differing(self._columns, "ft_name", index, says_name, Code.FT_NAME_DIFFERS)
        findings += _differing(
            self._columns, "creator_did", index, says_creator, Code.CREATOR_DIFFERS
        )
        return _text(says_name), _text(says_creator), findings


class NumberedJson:
    """`attributes_json` of many rows that differ in the number of their token only."""

    def __init__(self) -> None:
        self._around: dict[tuple[object, ...], tuple[str, str]] = {}

    def text(self, attributes: Attributes, own: Attributes, own_key: object) -> str:
        """The JSON of ``attributes`` and ``own``, which is the same wherever ``own_key`` is."""
        if _FT_NUMBER not in attributes:
            return attributes_json({**attributes, **own})
        key = (attributes["ft_name"], attributes["creator_did"], own_key)
        if key not in self._around:
            # In JSON no quotation mark stands inside a text as it is: the mark is the key's own.
            mark = f'"{_FT_NUMBER}":'
            whole = attributes_json({**attributes, _FT_NUMBER: 0, **own})
            before, _, after = whole.partition(f"{mark}0")
            self._around[key] = before + mark, after
        before, after = self._around[key]
        return f"{before}{attributes[_FT_NUMBER]}{after}"


# --- the other kinds ---------------------------------------------------------


def _nft(columns: Columns, index: int, content: bytes) -> _Decoded:
    del columns, index  # the row's DID is the owner, the content's the creator
    document = _object(content)
    if document is None:
        rac = decode_rac(content)
        return (None if rac is None else _signed(rac)), []
    out: Attributes = {}
    _take(out, "creator_did", document.get("DID"))
    _take(out, "artifact_hash", document.get("ArtifactHash"))
    return (out or None), []


def _contract(columns: Columns, index: int, content: bytes) -> _Decoded:
    document = _object(content)
    out: Attributes = {}
    findings: list[Finding] = []
    if document is not None:
        for name, key in _CODE_HASHES.items():
            _take(out, name, document.get(key))
            said = document.get(key)
            if isinstance(said, str):
                findings += _differing(columns, name, index, said, Code.CONTRACT_HASH_DIFFERS)
        if out:
            _take(out, "creator_did", document.get("did"))
    return (out or None), findings


def _data(columns: Columns, index: int, content: bytes) -> _Decoded:
    del columns, index  # the row names owner and committer, the content the creator
    rac = decode_rac(content)
    if rac is None:
        return None, []
    out = _signed(rac)
    _take(out, "user_id", rac.fields.get("7"))
    _take(out, "user_info", rac.fields.get("8"))
    left_out = 0
    for name, key in (("content_hashes", "10"), ("content_ids", "11")):
        files = rac.fields.get(key)
        if isinstance(files, dict):
            texts = {f: v for f, v in files.items() if isinstance(f, str) and isinstance(v, str)}
            out[name] = {_text(f): _text(texts[f]) for f in list(texts)[:FILES_LIMIT]}
            left_out = max(left_out, len(texts) - FILES_LIMIT)
    if left_out:
        out["files_left_out"] = left_out
    return out, []


_DECODERS: Final[Mapping[str, Callable[[Columns, int, bytes], _Decoded]]] = {
    "nft": _nft,
    "data": _data,
    "contract": _contract,
}


# --- small parts -------------------------------------------------------------

_to_json: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _differing(columns: Columns, name: str, index: int, said: str, code: Code) -> list[Finding]:
    value = _value(columns, name, index)
    if value is None or value == said or to_text(value) == said:
        return []
    message = f"says {name} {_shown(said)}, the row says {_shown(value)}"
    return [Finding(code, _FIELD, message)]


def _value(columns: Columns, name: str, index: int) -> SqliteValue:
    column = columns.get(name)
    return None if column is None else column[index]


def _decoded(content: bytes) -> str | None:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _object(content: bytes) -> dict[str, Any] | None:
    """The JSON object that ``content`` is; its size bounds what parsing costs."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):  # no UTF-8, no JSON, or a number of too many digits
        return None
    return document if isinstance(document, dict) else None


def _take(out: Attributes, name: str, value: object) -> None:
    """Put a text into ``out``; anything else is left out."""
    if isinstance(value, str) and value:
        out[name] = _text(value)


def _text(text: str) -> str:
    return cut(to_text(text) or "", TEXT_LIMIT)


def _shown(value: SqliteValue) -> str:
    """A value in a message: short, quoted, without control characters."""
    text = to_text(value)
    if text is None:
        return "NULL"
    return json.dumps(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…", ensure_ascii=False)
