#!/usr/bin/env python3
"""Check evidence or a proof; this one file needs Python 3.9 or newer and nothing else.

    python3 -I -S verify.py DIRECTORY --key PUBLIC_KEY.pem
    python3 -I -S verify.py PROOF.tlog-proof --key PUBLIC_KEY.pem

PUBLIC_KEY.pem is the signer's key as you got it from the signer by another way than this
evidence came: a key that comes with the evidence proves nothing about who made it.  Without
--key everything is checked against the key in the directory, and the exit code is 1.

Exit codes: 0 as it was signed; 1 as it was signed, but by a key that you did not name, or it
says itself that not everything was read, or lacks its time stamp; 2 usage; 5 not as it was
signed.

Nothing is written, no other program is started, and no network is used.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import stat
import sys
from typing import Any, BinaryIO

CONTENTS = (
    "records.parquet", "leaves.jsonl", "tree.blocks", "findings.jsonl", "VERIFY.md", "verify.py",
    "key.pem", "allowed_signers",
)  # fmt: skip
SIGNED = (*CONTENTS, "manifest.json")
NAMES = (*SIGNED, "SHA256SUMS", "checkpoint", "checkpoint.txt", "checkpoint.sig",
         "checkpoint.sshsig")  # fmt: skip
STAMPS = ("checkpoint.tsq", "checkpoint.tsr")  # `openssl ts` checks them: VERIFY.md
SMALL = 64 * 2**20  # no file that is read at once may be larger
LINE = 64 * 2**20
BLOCK = 256
DER = bytes.fromhex("302a300506032b6570032100")
TEXT = re.compile(
    r"(?P<origin>[^\s+]{1,200})\n(?P<size>0|[1-9][0-9]{0,17})\n(?P<root>[A-Za-z0-9+/]{43}=)\n"
    r"made (?P<made>[0-9T:.-]{26}Z)\nrun (?P<run>[0-9a-f-]{36})\n"
    r"files sha256:(?P<files>[0-9a-f]{64})\n"
)


class Refused(Exception):
    """It is not as it was signed."""


# --- Ed25519 (RFC 8032, 5.1.7) ---------------------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


Point = tuple[int, int, int, int]  # x, y, z, t


def plus(a: Point, b: Point) -> Point:
    """The sum of two points in extended coordinates."""
    e = (a[1] - a[0]) * (b[1] - b[0]) % P
    f = (a[1] + a[0]) * (b[1] + b[0]) % P
    g, h = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = f - e, h - g, h + g, f + e
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def times(number: int, point: Point) -> Point:
    """A point so many times."""
    found = (0, 1, 1, 0)
    while number:
        if number & 1:
            found = plus(found, point)
        point, number = plus(point, point), number >> 1
    return found


def point_of(data: bytes) -> Point | None:
    """The point in 32 bytes; None: they are not one."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


BASE = point_of((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def verifies(key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the 64 bytes are the key's signature of the message."""
    if len(signature) != 64:
        return False
    public, other = point_of(key), point_of(signature[:32])
    number = int.from_bytes(signature[32:], "little")
    if public is None or other is None or number >= L:
        return False
    digest = hashlib.sha512(signature[:32] + key + message).digest()
    assert BASE is not None
    left = times(number, BASE)
    right = plus(other, times(int.from_bytes(digest, "little") % L, public))
    return (left[0] * right[2] - right[0] * left[2]) % P == 0 and (
        left[1] * right[2] - right[1] * left[2]
    ) % P == 0


# --- the tree (RFC 6962, 2.1; RFC 9162, 2.1.3.2) ------------------------------------------


def sha256(data: bytes) -> bytes:
    """The hash."""
    return hashlib.sha256(data).digest()


def root_of(hashes: list[bytes]) -> bytes:
    """The hash of the tree above these hashes."""
    if not hashes:
        return sha256(b"")
    while len(hashes) > 1:
        pairs = [sha256(b"\1" + hashes[at] + hashes[at + 1]) for at in range(0, len(hashes) - 1, 2)]
        hashes = pairs + hashes[len(pairs) * 2 :]
    return hashes[0]


def root_from_path(index: int, size: int, found: bytes, path: list[bytes]) -> bytes | None:
    """The root in which the hash ``found`` stands at ``index``; None: the path does not fit."""
    place, last = index, size - 1
    for sibling in path:
        if last == 0:
            return None
        if place & 1 or place == last:
            found = sha256(b"\1" + sibling + found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = sha256(b"\1" + found + sibling)
        place, last = place >> 1, last >> 1
    return found if last == 0 else None


# --- keys and checkpoints -----------------------------------------------------------------


def key_in(data: bytes, what: str) -> bytes:
    """The 32 bytes of an Ed25519 key in PEM."""
    try:
        lines = data.decode("ascii").split()
        der = base64.b64decode("".join(lines[3:-3]), validate=True)
    except ValueError:
        raise Refused(f"{what} is not a public key in PEM.") from None
    if not der.startswith(DER) or len(der) != 44:
        raise Refused(f"{what} is not the PEM of an Ed25519 key.")
    return der[12:]


def checkpoint_in(data: bytes, key: bytes) -> tuple[re.Match[str], bytes]:
    """The signed text of a note, as a match of TEXT, and the signature."""
    try:
        text, _, signatures = data.decode("utf-8").partition("\n\n")
    except ValueError:
        raise Refused("The checkpoint is not text.") from None
    found = TEXT.fullmatch(text + "\n")
    if found is None:
        raise Refused("The checkpoint does not have the lines of a checkpoint.")
    origin = "rubix-token-sync/evidence/" + hashlib.sha256(key).hexdigest()[:16]
    key_id = sha256(origin.encode() + b"\n\1" + key)[:4]
    if found["origin"] != origin:
        raise Refused("The checkpoint is not of this key.")
    if not signatures.endswith("\n"):
        raise Refused("The checkpoint ends in the middle of a line.")
    for line in signatures.split("\n"):
        try:
            raw = base64.b64decode(line.rpartition(" ")[2], validate=True)
        except ValueError:
            raise Refused("A signature of the checkpoint is not base64.") from None
        if line.startswith(f"— {origin} ") and raw[:4] == key_id:
            if not verifies(key, raw[4:], (text + "\n").encode()):
                raise Refused("The signature of the checkpoint is wrong.")
            return found, raw[4:]
    raise Refused("The checkpoint is not signed by this key.")


# --- a directory ------------------------------------------------------------------------------


def opened(directory: str, name: str) -> BinaryIO:
    """A plain file of the directory: no link is followed."""
    try:
        handle = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Refused(f"{name} cannot be read as a plain file: {error.strerror}.") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Refused(f"{name} is not a plain file.")
    return os.fdopen(handle, "rb")


def small(directory: str, name: str) -> bytes:
    """What a small file holds."""
    with opened(directory, name) as file:
        data = file.read(SMALL + 1)
    if len(data) > SMALL:
        raise Refused(f"{name} is larger than it may be.")
    return data


def digest_of(directory: str, name: str) -> str:
    """SHA-256 in hexadecimal digits."""
    found = hashlib.sha256()
    with opened(directory, name) as file:
        while True:
            data = file.read(1 << 20)
            if not data:
                return found.hexdigest()
            found.update(data)


def check_directory(directory: str, key: bytes | None) -> tuple[re.Match[str], dict[str, Any]]:
    """Every check of a directory; returns the checkpoint and the manifest's predicate."""
    there = set(os.listdir(directory))
    for name in sorted(there - {*NAMES, *STAMPS}):
        raise Refused(f"{name!a} does not belong to the evidence.")
    for name in sorted({*NAMES, *(STAMPS if there & set(STAMPS) else ())} - there):
        raise Refused(f"{name} is missing.")
    own = key_in(small(directory, "key.pem"), "key.pem")
    if key is not None and own != key:
        raise Refused("The evidence holds another key than the one that you named.")
    found, signature = checkpoint_in(small(directory, "checkpoint"), own)
    if small(directory, "checkpoint.txt") != found[0].encode():
        raise Refused("checkpoint.txt is not the text that the checkpoint signs.")
    if small(directory, "checkpoint.sig") != signature:
        raise Refused("checkpoint.sig is not the signature of the checkpoint.")
    sums = small(directory, "SHA256SUMS")
    if hashlib.sha256(sums).hexdigest() != found["files"]:
        raise Refused("SHA256SUMS is not the one that was signed.")
    digests = {name: digest_of(directory, name) for name in SIGNED}
    listed = dict(line[::-1] for line in (row.split("  ", 1) for row in sums.decode().splitlines()))
    if sorted(listed) != sorted(SIGNED):
        raise Refused("SHA256SUMS does not list the files of evidence.")
    for name in SIGNED:
        if digests[name] != listed[name]:
            raise Refused(f"{name} was changed: its SHA-256 is not the one that was signed.")
    manifest = json.loads(small(directory, "manifest.json"))
    predicate = manifest["predicate"]
    subjects = {one["name"]: one["digest"]["sha256"] for one in manifest["subject"]}
    if subjects != {name: listed[name] for name in CONTENTS}:
        raise Refused("manifest.json and SHA256SUMS contradict each other.")
    if predicate["run"] != found["run"] or predicate["tree"]["root"] != found["root"]:
        raise Refused("manifest.json is of another run than the checkpoint.")
    if there & set(STAMPS) and predicate.get("time_stamp_from") is None:
        raise Refused("There is a time stamp, and manifest.json names no authority.")
    not_read = predicate["not_read"]
    errors = [one for one in not_read["problems"] if one["severity"] == "error"]
    if predicate["complete"] is not False and (
        predicate["complete"] is not True or errors or not_read["databases"]
    ):
        raise Refused(
            "manifest.json lists what was not read and does not say that it is incomplete."
        )
    check_tree(directory, int(found["size"]), base64.b64decode(found["root"]))
    return found, predicate


def check_tree(directory: str, size: int, root: bytes) -> None:
    """The lines of leaves.jsonl are the leaves of the signed tree."""
    hashes: list[bytes] = []
    blocks: list[tuple[int, bytes]] = []
    count, last, start = 0, "", 0
    entries = small(directory, "tree.blocks")
    with opened(directory, "leaves.jsonl") as lines:
        offset = 0
        while True:
            line = lines.readline(LINE)
            if not line:
                break
            if not line.endswith(b"\n"):
                raise Refused("leaves.jsonl ends in the middle of a line.")
            leaf = json.loads(line)
            if leaf.get("@type") != "rubix-token-record/1" or not leaf["record_key"] > last:
                raise Refused(f"Line {count + 1} of leaves.jsonl is not the next record.")
            last, count = leaf["record_key"], count + 1
            hashes.append(sha256(b"\0" + line[:-1]))
            offset += len(line)
            if len(hashes) == BLOCK:
                blocks.append((start, root_of(hashes)))
                hashes, start = [], offset
    if hashes:
        blocks.append((start, root_of(hashes)))
    if count != size:
        raise Refused(f"The tree has {size} leaves, leaves.jsonl {count}.")
    if root_of([found for _, found in blocks]) != root:
        raise Refused("The leaves do not give the root that was signed.")
    if entries != b"".join(at.to_bytes(8, "big") + found for at, found in blocks):
        raise Refused("tree.blocks does not belong to these leaves.")


# --- a proof ---------------------------------------------------------------------------------


def check_proof(data: bytes, key: bytes) -> tuple[re.Match[str], dict[str, Any]]:
    """A proof in the form of C2SP tlog-proof; returns the checkpoint and the record."""
    head, _, note = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
        first, extra, index = lines[:3]
        leaf = base64.b64decode(extra[len("extra ") :], validate=True)
        path = [base64.b64decode(line, validate=True) for line in lines[3:]]
        record = json.loads(leaf)
    except ValueError:
        raise Refused("The proof does not have the form of a proof.") from None
    if (first, extra[:6], index[:6]) != ("c2sp.org/tlog-proof@v1", "extra ", "index ") or not (
        re.fullmatch(r"0|[1-9][0-9]{0,17}", index[6:])
        and len(path) < 64
        and all(len(one) == 32 for one in path)
        and isinstance(record, dict)
        and record.get("@type") == "rubix-token-record/1"
    ):
        raise Refused("The proof does not have the form of a proof.")
    found, _ = checkpoint_in(note, key)
    place, size = int(index[6:]), int(found["size"])
    computed = root_from_path(place, size, sha256(b"\0" + leaf), path) if place < size else None
    if computed != base64.b64decode(found["root"]):
        raise Refused("The record is not in the tree that was signed.")
    return found, record


def main() -> int:
    """Check what is named; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", help="a directory of evidence, or a proof")
    parser.add_argument("--key", help="the signer's public key, PEM")
    given = parser.parse_args()
    try:
        key = None
        if given.key:
            with open(given.key, "rb") as file:
                key = key_in(file.read(65536), given.key)
        if os.path.isdir(given.path):
            found, predicate = check_directory(given.path, key)
        else:
            if key is None:
                parser.error("a proof is checked with --key")
            with open(given.path, "rb") as file:
                found, record = check_proof(file.read(SMALL), key)
            print(json.dumps(record, indent=2))
            print(f"This record is in the tree that was signed at {found['made']}.")
            return 0
    except Refused as refusal:
        print(f"REFUSED: {refusal}")
        return 5
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        print(f"REFUSED: it is malformed ({type(error).__name__}: {error!a}).")
        return 5
    except OSError as error:
        print(f"It cannot be read: {error}", file=sys.stderr)
        return 2
    code = 0
    print(f"As it was signed at {found['made']}: {found['size']} records, run {found['run']}.")
    if not predicate["complete"]:
        print("It says itself that not everything was read: see not_read in manifest.json.")
        code = 1
    if not predicate["one_moment"]:
        print("The target could not be read in one moment.")
        code = 1
    if predicate.get("time_stamp_from") is not None:
        if all(os.path.exists(os.path.join(given.path, name)) for name in STAMPS):
            print("Its time stamp is not checked here, but by `openssl ts`: VERIFY.md, step 5.")
        else:
            print(f"It was to be stamped by {predicate['time_stamp_from']!a}, and has no stamp.")
            code = 1
    if key is None:
        own = base64.b64encode(key_in(small(given.path, "key.pem"), "key.pem")).decode()
        print(f"Who signed it was not checked: name the signer's key by --key. Its key: {own}")
        code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
