"""Tokens of every kind: byte for byte what the real nodes hold, and signed as they sign."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections import Counter
from contextlib import closing
from hashlib import sha3_256
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from rubix_token_sync.ipfs.cid import DAG_PB, from_bytes, parse
from rubix_token_sync.ipfs.fetch import ContentChain, ContentOptions, open_chain
from rubix_token_sync.ipfs.readers.blockstore import BlockStoreReader
from rubix_token_sync.ipfs.repository import open_repository
from rubix_token_sync.ipfs.unixfs import DirectoryNode, FileNode, decode_node
from rubix_token_sync.records.rac import decode_rac
from rubix_token_sync.records.token_content import decode_contents, named_trees
from rubix_token_sync.testing import FlatfsWriter, encode_directory, encode_file
from rubix_token_sync.testing.contents import encode_rac
from rubix_token_sync.testing.identities import Identity, did_of, make_identity
from rubix_token_sync.testing.tokens import (
    MadeToken,
    go_time,
    make_contract,
    make_data,
    make_faucet,
    make_ft,
    make_nft,
    make_part,
    make_test,
)

ARTIFACT = "QmQvntSTXTt88QpZs5ts8bzCvwqyyHt3dJGGsmoAMcv1FU"
CONTRACT = "QmUvxBVtSqQK48CA7YUJKJxrCSFGhsHV6X3CuXdGosXUPq"
NFT = "Qmb4wYptywvzY8yThNrM3a5JmHdkrQzouhskm8WqgrL8Jw"
PARENT = "QmWFoudJnzbX75S2YHpDhyXFmykzBfDwmRjZ1nLzc5s5Dx"


class RealBlocks:
    """Blocks of one of the real nodes, and the files that they make."""

    def __init__(self, repository: Path) -> None:
        self._reader = BlockStoreReader(open_repository(str(repository)))

    def block(self, text: str) -> bytes:
        cid = parse(text)
        assert cid is not None
        (block,) = self._reader.blocks([cid])
        assert isinstance(block, bytes), block
        return block

    def file(self, text: str) -> bytes:
        cid = parse(text)
        assert cid is not None
        node = decode_node(cid.codec, self.block(text))
        assert isinstance(node, FileNode)
        return node.data + b"".join(self.file(link.cid.text) for link in node.links)


@pytest.fixture(scope="module")
def alice(real_nodes: Path) -> RealBlocks:
    return RealBlocks(real_nodes / "alice" / ".ipfs")


@pytest.fixture(scope="module")
def truth(real_nodes: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((real_nodes / "truth.json").read_text(encoding="utf-8"))
    return found


# --- byte for byte ---------------------------------------------------------------


class Seal:
    """Signs with a signature that is there already."""

    def __init__(self, signature: str) -> None:
        self.signature = signature

    def __call__(self, digest: str) -> str:
        self.digest = digest
        return self.signature


def test_every_signed_content_of_the_real_nodes_is_made_again(truth: dict[str, Any]) -> None:
    made: Counter[bool] = Counter()
    for token_id, known in truth["content"].items():
        content = known.get("text", "").encode()
        said = decode_rac(content)
        if said is None:
            continue
        signature = cbor2.loads(bytes.fromhex(content.decode()))["2"]
        shuffled = dict(reversed(list(said.fields.items())))
        seal = Seal(signature)
        assert encode_rac(shuffled, seal) == content
        assert seal.digest == said.signed_hash
        assert encode_file(content)[0] == token_id
        made[said.part is not None] += 1
    assert made[True] > 80
    assert made[False] > 800


def test_the_real_nft_and_its_artifact(alice: RealBlocks, truth: dict[str, Any]) -> None:
    document = json.loads(truth["content"][NFT]["text"])
    directory = decode_node(DAG_PB, alice.block(ARTIFACT))
    assert isinstance(directory, DirectoryNode)
    art, meta = (alice.file(entry.text) for entry in directory.entries)
    files = {"meta.json": meta, "art.bin": art}
    made = make_nft(document["DID"], files)
    assert made.token_id == NFT
    assert made.content == truth["content"][NFT]["text"].encode()
    assert encode_directory(files)[0] == ARTIFACT
    assert len(made.blocks) == 4
    assert_same_blocks(made, alice)


def test_the_real_contract_and_its_files(alice: RealBlocks, truth: dict[str, Any]) -> None:
    document = json.loads(truth["content"][CONTRACT]["text"])
    names = ("binaryCodeHash", "rawCodeHash", "schemaCodeHash")
    made = make_contract(document["did"], *(alice.file(document[name]) for name in names))
    assert made.token_id == CONTRACT
    assert len(made.blocks) == 1 + 1 + 1 + 3
    assert_same_blocks(made, alice)


def assert_same_blocks(made: MadeToken, alice: RealBlocks) -> None:
    for block in made.blocks:
        cid = from_bytes(block.cid)
        assert cid is not None
        assert alice.block(cid.text) == block.data


def test_the_real_dids(real_nodes: Path, alice: RealBlocks) -> None:
    found = sorted((real_nodes / "alice" / "Rubix" / "TestNetDID").glob("*/pubKey.pem"))
    assert len(found) > 5
    for path in found:
        assert did_of(path.read_bytes())[0] == path.parent.name
    own = did_of(found[-1].read_bytes())
    made = make_identity(1, 2)
    assert len(made.did) == 59
    assert made.did.startswith("bafybmi")
    assert len(made.public_key) == len(found[0].read_bytes())
    assert [len(block.data) for block in made.blocks] == [len(block.data) for block in own[1]]


# --- signed, and the same in every process -----------------------------------------


def proves(identity: Identity, content: bytes) -> bool:
    """Whether the content's signature is that of the key in the identity's file."""
    said = decode_rac(content)
    assert said is not None
    body = b"".join(identity.public_key.splitlines()[1:-1])
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), base64.b64decode(body))
    try:
        key.verify(said.signature, said.signed, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    except InvalidSignature:
        return False
    return True


def test_signatures_are_right() -> None:
    creator = make_identity(1, 1)
    for made in (
        make_test(creator, 5),
        make_part(creator, PARENT, 0, 0.001),
        make_data(creator, "user", {"data.txt": "ab" * 32}),
    ):
        assert proves(creator, made.content)
        assert not proves(make_identity(1, 2), made.content)
    assert proves(creator, encode_rac({"1": 0, "3": creator.did}, creator.sign))
    digest = sha3_256(b"x").hexdigest()
    assert creator.sign(digest) == creator.sign(digest)


def test_the_same_in_every_process() -> None:
    code = (
        "from rubix_token_sync.testing.identities import make_identity as i\n"
        "from rubix_token_sync.testing.tokens import make_part as p, make_test as t\n"
        f"print(p(i(3, 4), {PARENT!r}, 2, 0.5).token_id, t(i(3, 4), 9).token_id)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    creator = make_identity(3, 4)
    ours = [make_part(creator, PARENT, 2, 0.5).token_id, make_test(creator, 9).token_id]
    assert done.stdout.split() == ours
    assert ", _key=" not in repr(creator)


def test_tokens_differ_where_their_arguments_do() -> None:
    one, two = make_identity(1, 1), make_identity(1, 2)
    made = [
        *(make_test(creator, number) for creator in (one, two) for number in range(20)),
        make_part(one, PARENT, 0, 0.5),
        make_part(one, PARENT, 1, 0.5),
        make_part(one, PARENT, 0, 0.25),
        make_part(one, PARENT, 0, 0.5, moment=7),
    ]
    assert len({token.token_id for token in made}) == len(made)


def test_times_as_go_prints_them() -> None:
    assert go_time(1_795_968_733_746_010_450) == (
        "2026-11-29 16:12:13.74601045 +0000 UTC m=+793.746010450"
    )
    assert go_time(1_795_968_733_000_000_000).startswith("2026-11-29 16:12:13 +0000 UTC m=+")


# --- read by the program -----------------------------------------------------------


def test_made_tokens_are_read_decoded_and_proven(tmp_path: Path) -> None:
    creator = make_identity(1, 1)
    writer = FlatfsWriter(tmp_path / ".ipfs")
    writer.put(creator.blocks)
    files = {"a/b": b""}
    with pytest.raises(ValueError, match="no file can be named"):
        make_nft(creator.did, files)
    artifact = {"art.bin": bytes(300_000), "deeper": {"é ☃.json": b"{}", "empty": {}}}
    made = {
        "rbt": [
            make_test(creator, 1),
            make_part(creator, PARENT, 1, 0.123),
            make_faucet("F", 1, 4301),
        ],
        "ft": [make_ft("My Coin é", 7, creator.did)],
        "nft": [make_nft(creator.did, artifact)],
        "data": [make_data(creator, "u", {"f": "ab"}, info="i", contents={"f": b"file"})],
        "contract": [make_contract(creator.did, bytes(600_000), b"fn main(){}\n", b"{}\n")],
    }
    for tokens in made.values():
        for token in tokens:
            writer.put(token.blocks)
    with closing(
        open_chain(str(tmp_path / ".ipfs"), ContentOptions(ways=("blockstore",)))
    ) as chain:
        assert chain.tree(creator.did).files == 1
        for kind, tokens in made.items():
            done = chain.resolve([token.token_id for token in tokens])
            assert done.data == [token.content for token in tokens]
            attributes, found = decode_contents(kind, {}, done.data)
            assert found == {}
            assert None not in attributes
            proven = {
                name: chain.tree(cid)
                for token in tokens
                for name, cid in named_trees(kind, token.content).items()
            }
            sizes = {name: (tree.kind, tree.size, tree.files) for name, tree in proven.items()}
            if kind == "nft":
                assert sizes == {"artifact_hash": ("directory", 300_002, 2)}
            elif kind == "contract":
                assert sizes == {
                    "binary_code_hash": ("file", 600_000, 1),
                    "raw_code_hash": ("file", 12, 1),
                    "schema_code_hash": ("file", 3, 1),
                }
            else:
                assert sizes == {}
        assert_whole(chain, made["data"][0])


def assert_whole(chain: ContentChain, token: MadeToken) -> None:
    """The file of a data token lies in the repository, too."""
    said = decode_rac(token.content)
    assert said is not None
    assert chain.tree(said.fields["11"]["f"]).content == b"file"
