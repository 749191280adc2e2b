"""Made token chains against those that real nodes wrote: the same bytes from the same contents."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha3_256
from pathlib import Path
from typing import Any

import cbor2
import pytest

from rubix_token_sync.installation import LEVELDB
from rubix_token_sync.testing import (
    block_id,
    generated_block,
    make_identity,
    transferred_block,
    write_chains,
    write_public_keys,
)
from rubix_token_sync.testing.chains import (
    FT,
    TEST_WHOLE,
    encode_canonical,
    generated_content,
)

plyvel = pytest.importorskip(LEVELDB)


@dataclass
class Replay:
    """A signer that gives the signatures that a real one gave."""

    did: str
    given: dict[tuple[str, str], str]

    def sign(self, hash_: str) -> str:
        return self.given[self.did, hash_]


@pytest.fixture(scope="module")
def real_chain_copy(real_chains: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real chain directories that may be opened, as their node would, which changes them."""
    directory = tmp_path_factory.mktemp("opened")
    for source in sorted(real_chains.glob("*/Rubix/TestNet")):
        shutil.copytree(source, directory / source.relative_to(real_chains))
    return directory


@pytest.fixture(scope="module")
def real_blocks(real_chain_copy: Path) -> list[bytes]:
    """Every block of the real nodes, once."""

    def blocks() -> Iterator[bytes]:
        for directory in sorted(real_chain_copy.glob("*/Rubix/TestNet/*storage")):
            with plyvel.DB(str(directory)) as database:
                yield from (value for _, value in database if not value.startswith(b"rf-"))

    return list(dict.fromkeys(blocks()))


def _content(block: bytes) -> dict[str, Any]:
    return cbor2.loads(cbor2.loads(block)["1"])


def test_first_blocks_have_the_bytes_of_real_ones(real_blocks: list[bytes]) -> None:
    compared = 0
    for block in real_blocks:
        real = _content(block)
        if real["2"] != "05" or "6" in real:
            continue
        ((token, genesis),) = real["4"]["2"].items()
        made = generated_content(
            real["3"],
            token,
            real["5"]["6"][token]["1"],
            value=real.get("10", 0),
            number=genesis["2"],
            parent=genesis.get("5"),
            ancestors=genesis.get("6"),
            comment=real["5"].get("3"),
        )
        assert encode_canonical(made) == cbor2.loads(block)["1"]
        compared += 1
    assert compared > 2_000


def test_transfers_have_the_bytes_of_real_ones(real_blocks: list[bytes]) -> None:
    compared = 0
    for block in real_blocks:
        real = _content(block)
        if real["2"] != "02":
            continue
        transaction, contract = real["5"], cbor2.loads(real["6"])
        terms = cbor2.loads(contract["1"])
        values = {amount["4"] for amount in terms["3"]["4"].values()}
        if len(values) > 1:
            continue  # tokens of different values
        given = {
            (real["12"]["InitiatorDID"], real["12"]["hash"]): real["12"]["priv_signature"],
            **{(vote["did"], transaction["4"]): vote["priv_signature"] for vote in real["7"]},
        }
        own = sha3_256(cbor2.loads(block)["1"]).hexdigest()
        signed = cbor2.loads(cbor2.loads(block)["2"])
        given |= {(did, own): signature for did, signature in signed.items()}
        sender = transaction["1"]
        contract_signature = cbor2.loads(contract["3"])[sender]
        if contract_signature != real["12"]["priv_signature"]:
            continue  # signed twice, with two signatures: a signer that replays has only one
        made = transferred_block(
            Replay(sender, given),  # type: ignore[arg-type]
            real["3"],
            {token: place["5"] for token, place in transaction["6"].items()},
            next(iter(transaction["6"].values()))["1"],
            [Replay(vote["did"], given) for vote in real["7"]],  # type: ignore[misc]
            value=values.pop(),
            epoch=real.get("epoch"),
            pledges={
                did: [(one["1"], one["2"], one["3"]) for one in pledged]
                for did, pledged in real["8"].items()
            },
        )
        assert made == block
        compared += 1
    assert compared > 5


def test_the_keys_are_those_of_real_nodes(real_chain_copy: Path, tmp_path: Path) -> None:
    """A real directory's blocks, written again, give the real directory's keys and values."""
    real = real_chain_copy / "q1" / "Rubix" / "TestNet"
    pairs = {}
    for directory in sorted(real.glob("*storage")):
        with plyvel.DB(str(directory)) as database:
            pairs[directory.name] = dict(database)
    blocks = dict.fromkeys(v for found in pairs.values() for v in found.values() if v[:3] != b"rf-")
    write_chains(tmp_path / "Rubix", "test", blocks)
    for name, found in pairs.items():
        with plyvel.DB(str(tmp_path / "Rubix" / "TestNet" / name)) as database:
            assert dict(database) == found


def test_signers_are_those_of_their_seed(tmp_path: Path) -> None:
    one, other = make_identity(1, 1), make_identity(1, 2)
    assert one.did == make_identity(1, 1).did != other.did
    assert one.did.startswith("bafybmi")
    assert len(one.did) == 59
    assert one.sign("ab" * 32) == make_identity(1, 1).sign("ab" * 32) != other.sign("ab" * 32)
    write_public_keys(tmp_path, "main", [one])
    write_public_keys(tmp_path, "test", [other])
    assert (tmp_path / one.did / "pubKey.pem").read_bytes() == one.public_key
    assert (tmp_path / "TestNetDID" / other.did / "pubKey.pem").read_bytes() == other.public_key


def test_old_keys_are_decimal(tmp_path: Path) -> None:
    alice = make_identity(1, 1)
    first = generated_block(alice, "Qm" + "a" * 44, TEST_WHOLE)
    assert write_chains(tmp_path, "test", [first], old_keys=True) == 1
    with plyvel.DB(str(tmp_path / "TestNet" / "tokenchainstorage")) as database:
        ((key, value),) = database
    assert key.decode() == f"tt-Qm{'a' * 44}-{block_id(first, 'Qm' + 'a' * 44)}"
    assert value == first


def test_a_block_of_several_tokens_is_stored_once(tmp_path: Path) -> None:
    alice, bob = make_identity(1, 1), make_identity(1, 2)
    tokens = [f"Qm{n:044}" for n in range(3)]
    firsts = [generated_block(alice, token, FT, value=0.5) for token in tokens]
    previous = {token: block_id(block, token) for token, block in zip(tokens, firsts, strict=True)}
    then = transferred_block(alice, bob.did, previous, FT, [alice], epoch=1_795_968_124)
    assert write_chains(tmp_path, "main", [*firsts, then]) == 6
    with plyvel.DB(str(tmp_path / "MainNet" / "FTchainstorage")) as database:
        found = dict(database)
    assert list(found.values()).count(then) == 1
    assert len(found) == 7
