"""Verdicts from level, number and form; ids against a computation that shares no code."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.audit.authenticity import (
    ALL_SOURCES,
    Judgement,
    Ruling,
    Verdict,
    WholeToken,
    looks_whole,
    parse_whole,
)
from rubix_token_sync.audit.limits import Form, package_limits
from tests.audit import independent

LIMITS = package_limits()
ALL = Ruling(LIMITS)
DIGITS = {
    Form.THREE_DIGITS: (3, ""),
    Form.TWO_DIGITS: (2, ""),
    Form.THREE_DIGITS_NEWLINE: (3, "\n"),
    Form.TWO_DIGITS_NEWLINE: (2, "\n"),
}
OLD, NEW = "node-2023-02", "node-2024-08"
SERVICE, TOOL, MINT = "token-hash-generator", "rubix-token-hash-generator", "node-2026"


def test_the_readmes_value() -> None:
    token = WholeToken(3, 1_423_543)
    assert token.token_id() == "QmfYNyAyGD8xHE9XgctX8WnfJ627edkM2EkAcijEutoJmH"
    assert ALL.judge(token) == (Verdict.GENUINE, ALL_SOURCES, 3, 1_423_543)


def test_ids_of_all_levels_and_forms_against_an_independent_computation() -> None:
    chance = random.Random(20261129)
    tried = 0
    for level in LIMITS.levels:
        highest = LIMITS.highest(level)
        numbers = {0, 1, highest - 1, highest, *(chance.randrange(highest) for _ in range(2))}
        for number in numbers:
            for form, (digits, end) in DIGITS.items():
                if digits == 2 and level > 99:
                    continue
                data = independent.content(level, number, digits, end)
                token = WholeToken(level, number, form)
                assert token.content() == data
                assert token.token_id() == independent.id_of(data)
                tried += 1
    assert tried > 1_800


@pytest.mark.parametrize(
    ("level", "number", "form", "verdict", "source"),
    [
        (1, 1, 0, "genuine", "all"),
        (1, 4_299_999, 0, "genuine", "all"),
        (1, 4_300_000, 0, "disputed", MINT),
        (1, 4_300_001, 0, "disputed", TOOL),
        (1, 4_999_999, 0, "disputed", TOOL),
        (1, 5_000_000, 0, "disputed", OLD),
        (1, 5_000_001, 0, "out_of_range", "all"),
        (1, 0, 0, "disputed", SERVICE),
        (2, 0, 0, "disputed", SERVICE),
        (2, 2_424_999, 0, "genuine", "all"),
        (2, 2_425_000, 0, "disputed", OLD),
        (2, 2_425_001, 0, "out_of_range", "all"),
        (3, 2_188_562, 0, "genuine", "all"),
        (3, 2_188_563, 0, "disputed", NEW),
        (3, 2_303_749, 0, "disputed", NEW),
        (3, 2_303_750, 0, "disputed", OLD),
        (3, 2_303_751, 0, "out_of_range", "all"),
        (4, 2_188_562, 0, "genuine", "all"),
        (4, 2_188_563, 0, "disputed", OLD),
        (4, 2_188_564, 0, "out_of_range", "all"),
        (5, 5, 0, "disputed", TOOL),
        (78, 17_601, 0, "disputed", TOOL),
        (78, 17_602, 0, "disputed", OLD),
        (78, 17_603, 0, "out_of_range", "all"),
        (79, 1, 0, "out_of_range", "all"),
        (0, 1, 0, "out_of_range", "all"),
        (999, 1, 0, "out_of_range", "all"),
        (1, 7, 1, "disputed", SERVICE),
        (1, 7, 2, "disputed", SERVICE),
        (1, 7, 3, "disputed", SERVICE),
        (4, 7, 2, "disputed", SERVICE),
        (1, 5_000_000, 1, "out_of_range", "all"),
    ],
)
def test_where_all_must_agree(
    level: int, number: int, form: int, verdict: str, source: str
) -> None:
    judged = ALL.judge(WholeToken(level, number, Form(form)))
    assert judged == Judgement(Verdict(verdict), source, level, number)


@pytest.mark.parametrize(
    ("ruling", "level", "number", "form", "verdict"),
    [
        (OLD, 3, 2_200_000, 0, "genuine"),
        (NEW, 3, 2_200_000, 0, "out_of_range"),
        (OLD, 1, 0, 0, "genuine"),
        (SERVICE, 1, 0, 0, "out_of_range"),
        (SERVICE, 1, 5_000_000, 0, "genuine"),
        (OLD, 1, 5_000_000, 0, "out_of_range"),
        (OLD, 1, 7, 1, "genuine"),
        (OLD, 1, 7, 2, "genuine"),
        (SERVICE, 1, 7, 1, "forged_form"),
        (TOOL, 1, 7, 2, "forged_form"),
        (TOOL, 5, 7, 0, "out_of_range"),
        (MINT, 1, 4_300_000, 0, "out_of_range"),
        (MINT, 1, 4_299_999, 0, "genuine"),
    ],
)
def test_where_one_source_rules(
    ruling: str, level: int, number: int, form: int, verdict: str
) -> None:
    judged = Ruling(LIMITS, ruling).judge(WholeToken(level, number, Form(form)))
    assert judged == Judgement(Verdict(verdict), ruling, level, number)


def test_a_ruling_source_that_says_nothing_of_a_level() -> None:
    judged = Ruling(LIMITS, MINT).judge(WholeToken(2, 7))
    assert judged == Judgement(Verdict.NOT_DECIDABLE, None, 2, 7)


def test_what_a_stored_verdict_rests_on() -> None:
    assert ALL.version == f"{LIMITS.version} all"
    assert Ruling(LIMITS, MINT).version == f"{LIMITS.version} node-2026"


def test_a_source_that_is_not_one() -> None:
    with pytest.raises(ValueError, match="'miners' is not a source of limits; there are: node-2"):
        Ruling(LIMITS, "miners")


whole_tokens = st.builds(
    WholeToken,
    st.integers(0, 999),
    st.one_of(st.integers(0, 6_000_000), st.sampled_from([0, 4_300_000, 5_000_000])),
    st.sampled_from(Form),
)


@given(st.lists(whole_tokens, min_size=1, max_size=20), st.sampled_from([None, *LIMITS.names]))
def test_many_are_judged_as_each_source_says(tokens: list[WholeToken], name: str | None) -> None:
    """Against a plain reading of the sources' own rules."""
    ruling = Ruling(LIMITS, name)
    sources = LIMITS.sources if name is None else (LIMITS.source(name),)
    verdicts, deciding = ruling.judge_numbers(
        np.array([token.level for token in tokens]),
        np.array([token.number for token in tokens]),
        np.array([token.form for token in tokens]),
    )
    for token, verdict, source in zip(tokens, verdicts, deciding, strict=True):
        said = {s.name: s.accepts(*token) for s in sources if s.accepts(*token) is not None}
        refusing = [one for one, accepted in said.items() if not accepted]
        written = [one for one in said if token.form in LIMITS.source(one).forms]
        if not said:
            expected, named = Verdict.NOT_DECIDABLE, None
        elif not refusing:
            expected, named = Verdict.GENUINE, name or ALL_SOURCES
        elif len(refusing) < len(said):
            expected, named = Verdict.DISPUTED, refusing[0]
        elif written:
            expected, named = Verdict.OUT_OF_RANGE, name or ALL_SOURCES
        else:
            expected, named = Verdict.FORGED_FORM, name or ALL_SOURCES
        assert list(Verdict)[verdict] == expected
        assert (ruling.source_names[source] if source >= 0 else None) == named


@given(whole_tokens)
def test_a_content_is_read_as_it_was_written(token: WholeToken) -> None:
    parsed = parse_whole(token.content())
    if token.form.digits == 2 and token.level != 1:
        assert parsed is None or parsed.form.digits == 3
    else:
        assert parsed is not None
        assert (parsed.level, parsed.form) == (token.level, token.form)
        assert not looks_whole(token.content())


H = b"f4a5ac9cd7498503f8ab1b5f4f62454703e3cfef47886861d776819d3be9fdbb"


@pytest.mark.parametrize(
    "content",
    [
        b"1" + H,
        b"02" + H,
        b"+01" + H,
        b"0001" + H,
        b" 001" + H,
        b"001" + H + b"\r\n",
        b"001" + H + b"\n\n",
        b"001" + H.upper(),
        b"01" + H + b" ",
    ],
)
def test_other_spellings_are_not_whole_tokens_but_look_like_one(content: bytes) -> None:
    assert parse_whole(content) is None
    assert looks_whole(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"001",
        b"BIG 634 bafybmigz5tzuaa3zayunmtl44koczd2qpuxlkrhrvjz5pmpwpizxkfljuy",
        b"Faucet Name : faucettest1, Token Level : 1, Token Number : 77",
        b"x01" + H,
        b"001" + H[:-1] + b"g",
        b"001" + H + H,
        "٠٠١".encode() + H,
    ],
)
def test_what_is_something_else(content: bytes) -> None:
    assert parse_whole(content) is None
    assert not looks_whole(content)


@given(st.binary(max_size=100))
def test_any_content_can_be_looked_at(content: bytes) -> None:
    assert not (parse_whole(content) and looks_whole(content))
