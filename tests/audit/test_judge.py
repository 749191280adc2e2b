"""Batches of tokens to columns of verdicts: whole tokens, ids alone, signed ones, hostile ones."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rubix_token_sync.audit.authenticity import Judgement, Ruling, Verdict, WholeToken
from rubix_token_sync.audit.judge import JUDGEMENT_SCHEMA, Judge
from rubix_token_sync.audit.limits import Form
from rubix_token_sync.audit.signatures import keys_from
from rubix_token_sync.audit.table_files import open_or_build
from rubix_token_sync.audit.token_numbers import Range, TableSpec, TokenTable
from rubix_token_sync.errors import TokenTableError
from rubix_token_sync.ipfs.cid import cid_v1, sha256_multihash
from rubix_token_sync.ipfs.lite_did import lite_did_of
from rubix_token_sync.records.rac import decode_rac
from tests.audit import independent
from tests.audit.conftest import LIMITS, windows
from tests.audit.real_nodes import RealNodes
from tests.ipfs.trees import leaf, multihash, node, unixfs

GENUINE = Judgement(Verdict.GENUINE, "all", 2, 7)
TWO_SEVEN = independent.content(2, 7)
ID = independent.id_of(TWO_SEVEN)


def judged(batch: pa.RecordBatch) -> list[Judgement]:
    assert batch.schema == JUDGEMENT_SCHEMA
    return [
        Judgement(Verdict(row["verdict"]), *list(row.values())[1:]) for row in batch.to_pylist()
    ]


def known_tokens() -> list[tuple[int, int, int, str]]:
    """(level, number, digits, line end) for all levels, around each edge."""
    found = []
    for level in LIMITS.levels:
        numbers = [n for first, last in windows(LIMITS.highest(level)) for n in range(first, last)]
        chance = random.Random(level)
        for number in {0, LIMITS.highest(level), *chance.sample(numbers, 12)}:
            if number > LIMITS.highest(level):
                continue
            found += [(level, number, 3, ""), (level, number, 3, "\n")]
            if level == 1:
                found += [(level, number, 2, ""), (level, number, 2, "\n")]
    return found


def test_known_tokens_by_content_and_by_id_alone(judge: Judge) -> None:
    tokens = known_tokens()
    assert len(tokens) > 1_000
    contents = [independent.content(*token) for token in tokens]
    ids = [independent.id_of(content) for content in contents]
    expected = [
        Ruling(LIMITS).judge(_token(level, number, digits, end))
        for level, number, digits, end in tokens
    ]
    assert judged(judge.judge(ids, contents)) == expected
    assert judged(judge.judge(ids, [None] * len(ids))) == expected
    verdicts = Counter(judgement.verdict for judgement in expected)
    assert set(verdicts) == {Verdict.GENUINE, Verdict.DISPUTED, Verdict.OUT_OF_RANGE}


def _token(level: int, number: int, digits: int, end: str) -> WholeToken:
    return WholeToken(level, number, Form((2 if end else 0) + (digits == 2)))


@pytest.mark.parametrize("kind", [pa.string(), pa.binary(), pa.large_string(), pa.large_binary()])
def test_whatever_the_columns_are(judge: Judge, kind: pa.DataType) -> None:
    contents = pa.array([b"no", TWO_SEVEN, None, TWO_SEVEN, b""], pa.binary()).cast(kind)
    ids = pa.array([None, ID, ID, "Qm", ID])
    whole = judged(judge.judge(ids, contents))
    assert whole == [
        Judgement(Verdict.NOT_DECIDABLE),
        GENUINE,
        GENUINE,
        Judgement(Verdict.FORGED_FORM, "cid", 2, 7),
        Judgement(Verdict.NOT_DECIDABLE),
    ]
    assert judged(judge.judge(ids[1:4], contents[1:4])) == whole[1:4]
    chunked = pa.chunked_array([contents[:2], contents[2:]])
    assert judged(judge.judge(ids, chunked)) == whole
    assert judged(judge.judge(ids.cast(pa.large_string()), contents)) == whole
    assert judged(judge.judge(ids[:0], contents[:0])) == []
    nothing = pa.array([None, None], kind)
    assert judged(judge.judge(pa.array([ID, None]), nothing)) == [GENUINE, whole[0]]


def test_lists_of_texts_and_bytes(judge: Judge) -> None:
    half = judge.judge([ID, "\ud800", ID], [TWO_SEVEN.decode(), None, "\ud800" * 30])
    assert judged(half) == [GENUINE, *[Judgement(Verdict.NOT_DECIDABLE)] * 2]
    assert judged(judge.judge([ID, ID], [TWO_SEVEN.decode(), TWO_SEVEN])) == [GENUINE] * 2


def test_columns_of_different_lengths(judge: Judge) -> None:
    for arguments in ([[ID], []], [[ID], [None], []]):
        with pytest.raises(ValueError, match="as many"):
            judge.judge(*arguments)
    with pytest.raises(ValueError, match="as many"):
        judge.judge([ID], [None], decoded=[])


def test_kinds_that_no_content_proves(judge: Judge) -> None:
    kinds = ["rbt", None, "ft", "nft", "contract", "data", "new"]
    rows = judged(judge.judge([ID] * 7, [TWO_SEVEN] * 7, kinds))
    assert rows == [GENUINE, GENUINE, *[Judgement(Verdict.NOT_DECIDABLE)] * 3, GENUINE, rows[2]]
    encoded = pa.array(kinds).dictionary_encode()
    assert judged(judge.judge([ID] * 7, [None] * 7, encoded)) == rows


def test_a_forged_form(judge: Judge) -> None:
    """The shape of a token, its id right, but no number gives it; also with a true beginning."""
    right = hashlib.sha256(b"7").hexdigest()
    forgeries = {
        b"002" + b"a" * 64: 2,
        ("002" + right[:-1] + ("0" if right[-1] != "0" else "1")).encode(): 2,
        ("002" + right[:16] + "0" * 48).encode(): 2,
        ("01" + right[:20] + "0" * 44).encode(): 1,
        ("002" + right[:40] + "0" * 24 + "\n").encode(): 2,
        ("02" + right).encode(): None,
        ("0002" + right).encode(): None,
        ("002" + right.upper()).encode(): None,
        (" 002" + right).encode(): None,
    }
    ids = [independent.id_of(content) for content in forgeries]
    assert judged(judge.judge(ids, list(forgeries))) == [
        Judgement(Verdict.FORGED_FORM, None, level) for level in forgeries.values()
    ]


def test_a_number_out_of_range(judge: Judge) -> None:
    beyond = independent.content(4, 2_188_564)
    assert judge.one(independent.id_of(beyond), beyond) == (
        Verdict.OUT_OF_RANGE,
        "all",
        4,
        2_188_564,
    )
    no_level = independent.content(200, 7)
    assert judge.one(independent.id_of(no_level), no_level) == (
        Verdict.OUT_OF_RANGE,
        "all",
        200,
        7,
    )


def test_the_same_content_under_another_id(judge: Judge) -> None:
    """Anybody can cut a content into other blocks: verified, and still not this token."""
    halves = [leaf(TWO_SEVEN[:30]), leaf(TWO_SEVEN[30:])]
    links = [(multihash(half), "", len(half)) for half in halves]
    root = node(unixfs(2, None, 67, [30, 37]), links)
    cut = independent.base58(multihash(root))
    assert judge.one(cut, TWO_SEVEN) == (Verdict.FORGED_FORM, "cid", 2, 7)
    other = independent.id_of(b"other")
    assert judge.one(other, TWO_SEVEN) == (Verdict.FORGED_FORM, "cid", 2, 7)


def test_the_same_content_as_a_cid_of_version_1(judge: Judge) -> None:
    """``ipfs add --cid-version=1`` gives it; no software writes whole tokens so."""
    same_block = cid_v1(0x70, multihash(leaf(TWO_SEVEN)))
    raw_block = cid_v1(0x55, sha256_multihash(hashlib.sha256(TWO_SEVEN).digest()))
    for spelling in (same_block, raw_block):
        disputed = (Verdict.DISPUTED, "cid", 2, 7)
        assert judge.one(spelling, TWO_SEVEN) == disputed
    assert judge.one(same_block) == (Verdict.DISPUTED, "cid", 2, 7)
    assert judge.one(raw_block) == Judgement(Verdict.NOT_DECIDABLE)
    zero = independent.content(2, 0)
    assert judge.one(cid_v1(0x70, multihash(leaf(zero))), zero) == (
        Verdict.DISPUTED,
        "token-hash-generator",
        2,
        0,
    )


def test_a_ruling_source(tables: tuple[TokenTable, TokenTable]) -> None:
    number = 2_188_573
    content = independent.content(3, number)
    token_id = independent.id_of(content)
    for source, verdict in (("node-2023-02", "genuine"), ("node-2024-08", "out_of_range")):
        judge = Judge(Ruling(LIMITS, source), *tables)
        expected = (Verdict(verdict), source, 3, number)
        assert judge.one(token_id, content) == expected
        assert judge.one(token_id) == expected


def test_without_a_table_of_ids(tables: tuple[TokenTable, TokenTable]) -> None:
    judge = Judge(Ruling(LIMITS), tables[0])
    assert judge.one(ID) == Judgement(Verdict.NOT_DECIDABLE)
    assert judge.one(ID, TWO_SEVEN) == GENUINE


def test_two_numbers_with_the_same_prefix(
    tables: tuple[TokenTable, TokenTable], tmp_path: Path
) -> None:
    """2**64 is large, but not so large that a token may be called forged for it."""
    spec = TableSpec("numbers", "collides", (Range(0, Form.THREE_DIGITS, 0, 60),))
    path = Path(open_or_build(str(tmp_path), spec).path)
    table = TokenTable(str(path), spec)
    hashes = sorted(hashlib.sha256(b"%d" % number).digest() for number in range(61))
    at = hashes.index(hashlib.sha256(b"7").digest())
    assert at > 0
    # The table says that the number before 7 in order has 7's prefix as well.
    table.verify()
    keys = np.array(table._keys)
    keys[at - 1] = keys[at]
    table._keys = keys
    assert len(table.find_all(int(keys[at]))) == 2
    assert Judge(Ruling(LIMITS), table, tables[1]).one(ID, TWO_SEVEN) == GENUINE


strange_ids = st.one_of(
    st.none(),
    st.text(max_size=60),
    st.just("Qm\ud800"),
    st.text(alphabet=independent.ALPHABET, min_size=44, max_size=48).map(lambda t: "Qm" + t[2:]),
    st.just(ID),
    st.just("Qm" * 10_000),
    st.just("Q" + ID),
)
strange_contents = st.one_of(
    st.none(),
    st.binary(max_size=80),
    st.from_regex(rb"[0-9]{2,3}[0-9a-f]{64}\n?", fullmatch=True),
    st.just(TWO_SEVEN),
    st.just(b"a2" * 100),
)


@given(
    st.lists(
        st.tuples(strange_ids, strange_contents, st.sampled_from([None, "rbt", "data", "ft"])),
        max_size=6,
    )
)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hostile_batches_give_the_same_as_one_by_one(
    judge: Judge, rows: list[tuple[str | None, bytes | None, str | None]]
) -> None:
    answers = judged(judge.judge(*([row[at] for row in rows] for at in range(3))))
    for row, answer in zip(rows, answers, strict=True):
        (alone,) = judged(judge.judge([row[0]], [row[1]], [row[2]]))
        assert answer == alone
        if answer.verdict is Verdict.GENUINE:
            assert row[0] == ID
            assert row[1] in (None, TWO_SEVEN)


def test_a_damaged_table_is_never_a_forgery(tmp_path: Path) -> None:
    spec = TableSpec("numbers", "small", (Range(0, Form.THREE_DIGITS, 0, 60),))
    path = Path(open_or_build(str(tmp_path), spec).path)
    data = bytearray(path.read_bytes())
    data[4096:4500] = bytes(404)
    path.write_bytes(data)
    judge = Judge(Ruling(LIMITS), TokenTable(str(path), spec))
    tokens = [independent.content(2, number) for number in range(1, 60)]
    with pytest.raises(TokenTableError, match="checksum"):
        judge.judge([independent.id_of(content) for content in tokens], tokens)


def test_a_damaged_number_is_never_a_forgery(tmp_path: Path) -> None:
    """Its key is found, and gives another number: no miss, but no proof of anything either."""
    spec = TableSpec("numbers", "small", (Range(0, Form.THREE_DIGITS, 0, 60),))
    path = Path(open_or_build(str(tmp_path), spec).path)
    data = bytearray(path.read_bytes())
    values_at = 4096 + 8 * 61
    data[values_at] ^= 1
    path.write_bytes(data)
    number = int.from_bytes(data[values_at : values_at + 4], "little") ^ 1
    judge = Judge(Ruling(LIMITS), TokenTable(str(path), spec))
    content = independent.content(2, number)
    with pytest.raises(TokenTableError, match="checksum"):
        judge.one(independent.id_of(content), content)


class RealKeys:
    """Keys as they lie in the nodes' repositories, and how often each was asked for."""

    def __init__(self, nodes: RealNodes) -> None:
        self.key_of = keys_from(nodes.block)
        self.asked: Counter[str] = Counter()

    def __call__(self, did: str) -> bytes | None:
        self.asked[did] += 1
        return self.key_of(did)


@pytest.fixture(scope="module")
def signed(nodes: RealNodes) -> dict[str, bytes]:
    """Id and content of every signed token of the real nodes."""
    return {token: text for token, text in nodes.contents.items() if decode_rac(text) is not None}


def test_the_real_nodes_signatures(
    judge: Judge, signed: dict[str, bytes], nodes: RealNodes
) -> None:
    """Seven DIDs' keys lie in repositories that can be read; the eighth's is in a pebble store."""
    keys = RealKeys(nodes)
    assert len(signed) == 898
    batch = judge.judge(list(signed), list(signed.values()), key_of=keys)
    verdicts = Counter(batch["verdict"].to_pylist())
    assert verdicts == {"signature_checked": 868, "signature_not_checked": 30}
    assert batch["token_level"].null_count == batch["verdict_source"].null_count == 898
    assert sorted(keys.asked.values()) == [1] * 7 + [30]
    assert set(judge.judge(list(signed), list(signed.values()))["verdict"].to_pylist()) == {
        "signature_checked",
        "signature_not_checked",
    }, "keys that were proven are kept"


def test_the_key_of_a_pebble_store_proves_itself(
    tables: tuple[TokenTable, TokenTable], signed: dict[str, bytes], nodes: RealNodes
) -> None:
    judge = Judge(Ruling(LIMITS), *tables)
    keys = nodes.key_files
    assert all(lite_did_of(pem) == did for did, pem in keys.items())
    out_of_reach = [did for did in keys if keys_from(nodes.block)(did) is None]
    some = {
        token: content
        for token, content in signed.items()
        if (rac := decode_rac(content)) is not None and rac.creator_did in out_of_reach
    }
    batch = judge.judge(list(some), list(some.values()), key_of=keys.get)
    assert Counter(batch["verdict"].to_pylist()) == {"signature_checked": 30}


def test_what_is_done_to_a_signed_token(
    tables: tuple[TokenTable, TokenTable], signed: dict[str, bytes], nodes: RealNodes
) -> None:
    judge = Judge(Ruling(LIMITS), *tables)
    keys = nodes.key_files
    token, content = next(iter(signed.items()))
    rac = decode_rac(content)
    assert rac is not None

    def verdict(changed: bytes, token_id: str | None = None) -> Verdict:
        given_id = token_id or independent.id_of(changed)
        return judge.one(given_id, changed, key_of=keys.get).verdict

    assert verdict(content, token) is Verdict.SIGNATURE_CHECKED
    year = content.replace(b"2026".hex().encode(), b"2027".hex().encode())
    assert year != content
    assert verdict(year) is Verdict.SIGNATURE_WRONG
    signature = rac.signature.hex().encode().hex().encode()
    assert signature in content
    cut = content.replace(signature, b"30" * (len(signature) // 2))
    assert verdict(cut) is Verdict.SIGNATURE_WRONG
    assert judge.one(independent.id_of(b"x"), content, key_of=keys.get) == (
        Verdict.FORGED_FORM,
        "cid",
        None,
        None,
    )
    assert judge.one(token, content, "ft", key_of=keys.get).verdict is Verdict.NOT_DECIDABLE
    wrong = {did: pem for did, pem in keys.items() if did != rac.creator_did}
    other = Judge(Ruling(LIMITS), *tables)
    assert (
        other.one(token, content, key_of=lambda did: next(iter(wrong.values()))).verdict
        is Verdict.SIGNATURE_WRONG
    )
    unread = Judge(Ruling(LIMITS), *tables)
    for pem in (None, b"", b"not a key", b"x" * 100_000):
        checked = unread.one(token, content, key_of=lambda did, pem=pem: pem)
        assert checked.verdict is Verdict.SIGNATURE_NOT_CHECKED


def test_what_was_decoded_already_is_not_decoded_again(
    judge: Judge, signed: dict[str, bytes]
) -> None:
    some = dict(list(signed.items())[:3])
    given_ = [decode_rac(content) for content in some.values()]
    batch = judge.judge(list(some), list(some.values()), decoded=[given_[0], None, given_[2]])
    assert [name.partition("_")[0] for name in batch["verdict"].to_pylist()] == [
        "signature",
        "not",
        "signature",
    ]


@pytest.mark.long
def test_every_number_at_the_edge_of_every_level(
    tables: tuple[TokenTable, TokenTable],
) -> None:
    """All entries of the small table of ids, each by its content and by its id."""
    judge = Judge(Ruling(LIMITS), *tables)
    tokens = [
        WholeToken(span.level, number, span.form)
        for span in tables[1].spec.ranges
        for number in range(span.first, span.last + 1)
    ]
    ids = [token.token_id() for token in tokens]
    expected = [Ruling(LIMITS).judge(token) for token in tokens]
    assert judged(judge.judge(ids, [token.content() for token in tokens])) == expected
    assert judged(judge.judge(ids, [None] * len(ids))) == expected
