"""VERIFY.md: how to check the directory that it lies in, with tools that everybody has."""

from __future__ import annotations

from typing import Final

from rubix_token_sync.evidence.keys import NAMESPACE, PublicKey

__all__ = ["guide_text"]

# ruff: noqa: E501 - commands to be copied
_TEXT: Final = """\
# How to check this evidence

Nothing here needs the program that made it, or a network. Work in this directory, in a shell.

The signer's key must have come to you by another way than this directory did. It is in
`key.pem` and `allowed_signers`; compare it first:

```text
{fingerprint}
```

```bash
cut -d' ' -f 3- allowed_signers | ssh-keygen -l -f -
```

## 1. Who signed it

One signature, in two forms: for OpenSSL, and for OpenSSH.

```bash
openssl pkeyutl -verify -pubin -inkey key.pem -rawin -in checkpoint.txt -sigfile checkpoint.sig
ssh-keygen -Y verify -f allowed_signers -I evidence -n {namespace} -s checkpoint.sshsig < checkpoint.txt
```

`checkpoint` holds the same text and signature as a signed note (c2sp.org/tlog-checkpoint).

## 2. That no file was changed

The signed text names the hash of `SHA256SUMS`, and that every other file.

```bash
echo "$(sed -n 's/^files sha256://p' checkpoint.txt)  SHA256SUMS" | sha256sum -c -
sha256sum -c SHA256SUMS
```

## 3. That these records are the signed tree

`leaves.jsonl` has one line a record; the line's bytes, without the line feed, are the leaf.
`verify.py` is one file on Python's standard library, short enough to be read. It does steps 1
and 2 as well, and the tree (RFC 6962, SHA-256):

```bash
python3 -I -S verify.py . --key key.pem
test "$(wc -l < leaves.jsonl)" -eq "$(sed -n 2p checkpoint.txt)"
```

Give it the key that you got from the signer in place of `key.pem`. Exit code 5: it is not as it
was signed.

## 4. What it says, and what it does not

`manifest.json` (an in-toto statement) says what was read and what was **not** (`not_read`,
`complete`), what audits had found, and which evidence came before. The signature proves that the
holder of the key says so; it does not prove that the nodes told the truth.

`records.parquet` holds the same records as a table, in the order of `leaves.jsonl`. Only the
program compares the two: `rubix-token-sync evidence verify`.

{stamped}## By hand: one record

A proof (`*.tlog-proof`) is checked by `python3 -I -S verify.py PROOF --key key.pem`. Without
Python: hash the leaf, then hash upwards with each line of the proof, and compare with line 3 of
the checkpoint. This needs a POSIX shell, OpenSSL and coreutils:

```bash
check_proof() {{
  place=$(sed -n 's/^index //p' "$1"); last=$(( $(sed '1,/^$/d' "$1" | sed -n 2p) - 1 ))
  hash=$({{ printf '\\000'; sed -n 's/^extra //p' "$1" | base64 -d; }} | openssl dgst -sha256 -binary | base64)
  for other in $(sed '/^$/,$d' "$1" | sed 1,3d); do
    left=$hash; right=$other
    if [ $((place % 2)) -eq 1 ] || [ "$place" -eq "$last" ]; then
      left=$other; right=$hash
      while [ $((place % 2)) -eq 0 ] && [ "$place" -gt 0 ]; do place=$((place / 2)); last=$((last / 2)); done
    fi
    hash=$({{ printf '\\001'; echo "$left" | base64 -d; echo "$right" | base64 -d; }} | openssl dgst -sha256 -binary | base64)
    place=$((place / 2)); last=$((last / 2))
  done
  [ "$last" -eq 0 ] && [ "$hash" = "$(sed '1,/^$/d' "$1" | sed -n 3p)" ]
}}
```

`check_proof FILE` ends with 0 where the record is in the tree. The signature under the
checkpoint in the proof is checked as in step 1: its text is what stands between the first empty
line and the second.
"""

_STAMPED: Final = """\
## 5. That it was signed by then

{authority} was asked for a time stamp (RFC 3161) of `checkpoint`, signature included: what it
stamped existed by its clock at that moment. `checkpoint.tsq` is the question, `checkpoint.tsr` the
answer. If they are missing, the stamp is missing: this evidence should have one. Get the authority's
root certificate from the authority, and put it beside this directory as `authority.pem`:

```bash
openssl ts -verify -in checkpoint.tsr -queryfile checkpoint.tsq -CAfile ../authority.pem
openssl ts -verify -in checkpoint.tsr -data checkpoint -CAfile ../authority.pem
openssl ts -reply -in checkpoint.tsr -text
```

The first command checks signature, certificates and nonce, the second that it is of this
checkpoint; the third shows the time. Where the authority's certificate has expired since, add
`-attime SECONDS` with the time of the stamp, in seconds since 1970.

"""


def guide_text(key: PublicKey, time_stamp_from: str | None = None) -> str:
    """The guide for evidence that this key signs, and an authority is asked to stamp."""
    stamped = "" if time_stamp_from is None else _STAMPED.format(authority=time_stamp_from)
    return _TEXT.format(fingerprint=key.fingerprint, namespace=NAMESPACE, stamped=stamped)
