"""Token chains as real nodes write them: blocks with valid hashes, links and signatures.

    alice, quorum = make_identity(1, 0), [make_identity(1, n) for n in range(1, 6)]
    first = generated_block(alice, token_id, FT, value=0.001, parent=burnt_id)
    then = transferred_block(alice, bob.did, {token_id: block_id(first, token_id)}, FT, quorum)
    write_chains(node / "Rubix", "test", [first, then])
    write_public_keys(node / "Rubix", "test", [alice, bob, *quorum])

From the same contents come the same bytes as from the node software (v0.0.20), which a test
proves on the blocks of real nodes.  Signatures are valid and no one else's: keys follow from
a seed.  Writing directories needs the extra ``chains``, the rest does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha3_256
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal

import cbor2

from rubix_token_sync.installation import LEVELDB
from rubix_token_sync.testing.identities import Identity

__all__ = [
    "DATA",
    "FT",
    "NFT",
    "SMART_CONTRACT",
    "TEST_NFT",
    "TEST_PART",
    "TEST_WHOLE",
    "WHOLE",
    "block_id",
    "encode_block",
    "encode_canonical",
    "generated_block",
    "generated_content",
    "transferred_block",
    "write_chains",
    "write_public_keys",
]

WHOLE, PART, NFT, TEST_WHOLE, DATA, TEST_PART, TEST_NFT, TEST_DATA, SMART_CONTRACT = range(9)
FT: Final = 10
"""Types of tokens, as blocks have them."""

_KINDS: Final = {
    WHOLE: "wt",
    PART: "pt",
    NFT: "nt",
    TEST_WHOLE: "tt",
    DATA: "dt",
    TEST_PART: "tp",
    TEST_NFT: "tn",
    TEST_DATA: "wt",  # the node software knows no other for it
    SMART_CONTRACT: "st",
    FT: "ft",
}
_STORAGES: Final = {
    WHOLE: "tokenchainstorage",
    PART: "tokenchainstorage",
    TEST_WHOLE: "tokenchainstorage",
    TEST_PART: "tokenchainstorage",
    NFT: "nftchainstorage",
    TEST_NFT: "nftchainstorage",
    DATA: "datachainstorage",
    TEST_DATA: "datachainstorage",
    SMART_CONTRACT: "smartcontractokenchainstorage",
    FT: "FTchainstorage",
}
_TRANSFER_MODES: Final = {FT: 8}  # of contracts; all others have 0
_NETS: Final = {"main": "MainNet", "test": "TestNet"}


def encode_canonical(value: Any) -> bytes:
    """CBOR as the node software writes it: the shortest keys first, the shortest floats."""
    return cbor2.dumps(value, canonical=True)


def encode_block(content: Mapping[str, Any], signers: Sequence[Identity]) -> bytes:
    """The block with this content, signed."""
    raw = encode_canonical(content)
    hash_ = sha3_256(raw).hexdigest()
    signatures = {signer.did: signer.sign(hash_) for signer in signers}
    return encode_canonical({"1": raw, "2": encode_canonical(signatures)})


def generated_content(
    owner: str,
    token: str,
    token_type: int,
    *,
    value: float = 1.0,
    number: int = 0,
    parent: str | None = None,
    ancestors: Sequence[str] | None = None,
    comment: str | None = None,
) -> dict[str, Any]:
    """The content of a token's first block, of type 05.

    Args:
        owner: the DID that generates it.
        token: its id.
        token_type: `FT`, `TEST_WHOLE` and so on.
        value: of the token; 0 is left out.
        number: which one of its FT this is.
        parent: of an FT or a part: the token burnt for it.
        ancestors: of a part: the parents of the parent.
        comment: such as ``FT generated at : …``.
    """
    genesis: dict[str, Any] = {"1": 0, "2": number, "7": {}}
    if parent is not None:
        genesis["5"] = parent
    if ancestors is not None:
        genesis["6"] = list(ancestors)
    transaction: dict[str, Any] = {"6": {token: {"1": token_type, "4": "0", "5": ""}}}
    if comment is not None:
        transaction["3"] = comment
    content: dict[str, Any] = {
        "2": "05",
        "3": owner,
        "4": {"1": "" if parent is not None else "05", "2": {token: genesis}},
        "5": transaction,
        "11": [],
    }
    if value:
        content["10"] = float(value)
    return content


def generated_block(signer: Identity, token: str, token_type: int, **details: Any) -> bytes:
    """A token's first block; ``details`` are those of `generated_content`."""
    return encode_block(generated_content(signer.did, token, token_type, **details), [signer])


def transferred_block(
    sender: Identity,
    receiver: str,
    previous: Mapping[str, str],
    token_type: int,
    quorum: Sequence[Identity],
    *,
    value: float = 1.0,
    epoch: int | None = None,
    pledges: Mapping[str, Sequence[tuple[str, int, str]]] | None = None,
) -> bytes:
    """A block of type 02, agreed by a quorum, for one token or several.

    Args:
        sender, receiver: the owner before it, and the DID of the one after it.
        previous: the id of the latest block of each token.
        token_type: of all of them.
        quorum: who signs; five on a real network.
        value: of each token.
        epoch: Unix seconds; older nodes write none.
        pledges: by DID of the quorum, the tokens it pledges: id, type, latest block.
    """
    amounts = {
        token: {"1": token_type, "2": sender.did, "3": block, "4": float(value)}
        for token, block in previous.items()
    }
    mode = _TRANSFER_MODES.get(token_type, 0)
    total = 0.0 if token_type == FT else float(value * len(amounts))
    terms = encode_canonical(
        {"1": mode, "2": 0, "3": {"1": sender.did, "2": receiver, "4": amounts}, "4": total}
    )
    agreed = sha3_256(terms).hexdigest()
    contract = encode_canonical(
        {
            "1": terms,
            "2": encode_canonical({sender.did: ""}),
            "3": encode_canonical({sender.did: sender.sign(agreed)}),
        }
    )
    transaction_id = sha3_256(contract).hexdigest()
    content: dict[str, Any] = {
        "2": "02",
        "3": receiver,
        "5": {
            "1": sender.did,
            "2": receiver,
            "4": transaction_id,
            "6": {
                token: {"1": token_type, "4": str(int(block.split("-")[0]) + 1), "5": block}
                for token, block in previous.items()
            },
        },
        "6": contract,
        "7": [_vote(member, transaction_id) for member in quorum],
        "11": [],
        "12": {
            "hash": agreed,
            "sign_type": 0,
            "InitiatorDID": sender.did,
            "priv_signature": sender.sign(agreed),
            "nlss_share_signature": "",
        },
    }
    if epoch is not None:
        content["epoch"] = epoch
    if pledges is not None:
        content["8"] = {
            did: [{"1": token, "2": kind, "3": block} for token, kind, block in tokens]
            for did, tokens in pledges.items()
        }
    return encode_block(content, quorum)


def _vote(member: Identity, transaction_id: str) -> dict[str, str]:
    return {
        "did": member.did,
        "hash": "",
        "sign_type": "0",
        "signature": "",
        "priv_signature": member.sign(transaction_id),
    }


def block_id(block: bytes, token: str) -> str:
    """How the next block of ``token`` names this one: ``NUMBER-HASH``."""
    raw = cbor2.loads(block)["1"]
    number = cbor2.loads(raw)["5"]["6"][token]["4"]
    return f"{number}-{sha3_256(raw).hexdigest()}"


def write_chains(
    rubix: str | Path,
    network: Literal["main", "test"],
    blocks: Iterable[bytes],
    *,
    old_keys: bool = False,
) -> int:
    """Add blocks to a node's chain directories, which are made; gives the number of keys.

    Args:
        rubix: the node's directory ``Rubix``.
        network: whose chains.
        blocks: each is written for all of its tokens.
        old_keys: write decimal numbers, as early node software did.

    Raises:
        ImportError: the extra ``chains`` is not installed.
    """
    leveldb = import_module(LEVELDB)
    opened: dict[str, Any] = {}
    written = 0
    try:
        for storage in sorted(set(_STORAGES.values())):  # a node makes all of them at its start
            directory = Path(rubix) / _NETS[network] / storage
            directory.parent.mkdir(parents=True, exist_ok=True)
            opened[storage] = leveldb.DB(str(directory), create_if_missing=True)
        for block in blocks:
            raw = cbor2.loads(block)["1"]
            hash_ = sha3_256(raw).hexdigest()
            tokens = cbor2.loads(raw)["5"]["6"]
            value = block
            for at, (token, place) in enumerate(sorted(tokens.items())):
                database = opened[_STORAGES[place["1"]]]
                if len(tokens) > 1 and at == 0:
                    value = f"rf-{sha3_256(block).hexdigest()}-{hash_}".encode()
                    database.put(value, block)
                number = place["4"] if old_keys else f"{int(place['4']):016x}"
                database.put(f"{_KINDS[place['1']]}-{token}-{number}-{hash_}".encode(), value)
                written += 1
    finally:
        for database in opened.values():
            database.close()
    return written


def write_public_keys(
    rubix: str | Path, network: Literal["main", "test"], signers: Iterable[Identity]
) -> None:
    """Put the signers' public keys where a node keeps those of the DIDs it has dealt with."""
    base = Path(rubix) if network == "main" else Path(rubix) / "TestNetDID"
    for signer in signers:
        directory = base / signer.did
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "pubKey.pem").write_bytes(signer.public_key)
