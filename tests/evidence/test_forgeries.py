"""Every way to forge evidence is refused, with a sentence; by the program and by verify.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from rubix_token_sync.errors import EvidenceRefused
from rubix_token_sync.evidence import standalone
from rubix_token_sync.evidence.keys import read_public_key
from rubix_token_sync.evidence.verify import verify
from tests.evidence.conftest import Signed
from tests.evidence.forging import BY_ANYBODY, BY_THE_SIGNER, Forgery, sign_again

ALL = [*BY_ANYBODY, *BY_THE_SIGNER]


def test_there_are_enough_of_them() -> None:
    assert len({(one in BY_ANYBODY, one.name) for one in ALL}) == len(ALL) > 80


def test_what_was_not_forged_is_accepted(signed: Signed, copy: Path) -> None:
    done = verify(copy, read_public_key(signed.public))
    assert done.exit_code == 0
    assert verify(copy, None).exit_code == 1
    sign_again(copy, signed.key, tree=True)  # the tools of this test do not break it
    assert verify(copy, read_public_key(signed.public)).exit_code == 0


@pytest.mark.parametrize(
    "forgery", ALL, ids=[f"{n} {one.name}".replace(" ", "-") for n, one in enumerate(ALL)]
)
def test_a_forgery_is_refused(signed: Signed, copy: Path, forgery: Forgery) -> None:
    forgery.change(copy, signed)
    key = read_public_key(signed.public)
    with pytest.raises(EvidenceRefused) as refusal:
        verify(copy, key)
    assert refusal.value.exit_code == 5
    assert len(refusal.value.message) > 20
    assert refusal.value.remedy
    if forgery.code:
        assert refusal.value.code == forgery.code, refusal.value.message
    if forgery.seen_by_standalone:
        with pytest.raises((standalone.Refused, ValueError, KeyError, TypeError, RecursionError)):
            standalone.check_directory(str(copy), key.raw)
    else:
        standalone.check_directory(str(copy), key.raw)
