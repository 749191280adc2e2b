"""Ed25519 keys in the forms that others read, and signing with a file or an agent.

A private key is a file in PKCS #8 (what `openssl genpkey` writes) or OpenSSH's form, without a
pass phrase and for its owner alone.  A public one is PEM, a line of OpenSSH, or a verifier key
of C2SP's signed notes.  Where only the public half is given, the agent of SSH_AUTH_SOCK signs.
"""

from __future__ import annotations

import base64
import os
import socket
import stat
import struct
from dataclasses import dataclass
from hashlib import sha256, sha512
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from rubix_token_sync import node_files
from rubix_token_sync.errors import SettingsError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = [
    "NAMESPACE",
    "PublicKey",
    "Signer",
    "check_sshsig",
    "make_key",
    "open_signer",
    "parse_public_key",
    "read_public_key",
    "sshsig",
]

NAMESPACE: Final = "rubix-token-sync-evidence"
"""Of SSHSIG: a signature made for something else is none of evidence."""

_MOST_BYTES: Final = 65_536
_DER: Final = bytes.fromhex("302a300506032b6570032100")  # SubjectPublicKeyInfo of Ed25519
_SSH: Final = b"ssh-ed25519"
_ORIGIN: Final = "rubix-token-sync/evidence/"
_AGENT_SECONDS: Final = 60.0


@dataclass(frozen=True)
class PublicKey:
    """The public half of a key: 32 bytes."""

    raw: bytes

    @property
    def origin(self) -> str:
        """The name under which it signs checkpoints: it follows from the key."""
        return _ORIGIN + sha256(self.raw).hexdigest()[:16]

    @property
    def key_id(self) -> bytes:
        """Four bytes in front of its signatures (C2SP signed-note)."""
        return sha256(self.origin.encode() + b"\n\x01" + self.raw).digest()[:4]

    @property
    def verifier_key(self) -> str:
        """The form of C2SP signed-note: name, key id, key."""
        data = base64.b64encode(b"\x01" + self.raw).decode()
        return f"{self.origin}+{self.key_id.hex()}+{data}"

    @property
    def ssh_blob(self) -> bytes:
        """The form of OpenSSH, before base64."""
        return _string(_SSH) + _string(self.raw)

    @property
    def ssh_line(self) -> str:
        """A line of an ``authorized_keys`` file."""
        return f"ssh-ed25519 {base64.b64encode(self.ssh_blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it."""
        return "SHA256:" + base64.b64encode(sha256(self.ssh_blob).digest()).decode().rstrip("=")

    @property
    def pem(self) -> str:
        """The form of OpenSSL."""
        text = base64.b64encode(_DER + self.raw).decode()
        return f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n"

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether the 64 bytes are this key's signature of ``data``."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, data)
        except (InvalidSignature, ValueError):
            return False
        return True


class Signer(Protocol):
    """What signs."""

    @property
    def public(self) -> PublicKey:
        """The public half."""

    def sign(self, data: bytes) -> bytes:
        """64 bytes.  Raises SettingsError where the agent refuses."""


def make_key(path: Path) -> PublicKey:
    """Make a key: the private half in ``path``, the public one as PEM in ``path``.pub.

    Raises:
        SettingsError: one of the files exists, or cannot be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    text = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = _public_half(private)
    other = path.with_name(path.name + ".pub")
    for file in (path, other):
        if os.path.lexists(file):
            raise SettingsError(
                f"{file} exists already; a key is never written over.",
                code="key_exists",
                remedy="Choose another name: evidence that was signed with a lost key can "
                "still be checked, but nothing can be signed with it any more.",
            )
    try:
        _write_new(path, text, 0o600)
        _write_new(other, public.pem.encode(), 0o644)
    except OSError as error:
        raise SettingsError(
            f"The key {path} cannot be written: {error.strerror or error}.",
            code="key_unwritable",
            remedy="Choose another place.",
        ) from error
    return public


def _write_new(path: Path, data: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def open_signer(path: Path) -> Signer:
    """What signs with the key in a file; of a public one the agent has the private half.

    Raises:
        SettingsError: it cannot be read, is not a key of this kind, or others may read it.
    """
    data, mode, owner = _read(path)
    if b"PRIVATE KEY" not in data:
        return _AgentSigner(parse_public_key(data, path))
    if mode & 0o077 or owner not in (0, os.geteuid()):
        raise SettingsError(
            f"Others may read the key {path}, or it belongs to somebody else.",
            code="key_insecure",
            remedy=f"Make it your own: chmod 600 {path}; whoever has it can sign in your name.",
        )
    return _FileSigner(_parse_private(data, path))


def read_public_key(path: Path) -> PublicKey:
    """The public key in a file: PEM, a line of OpenSSH, or a verifier key.

    Raises:
        SettingsError: it cannot be read, or is not such a key.
    """
    data, _, _ = _read(path)
    return parse_public_key(data, path)


def _read(path: Path) -> tuple[bytes, int, int]:
    try:
        # Never waits for the writer of a pipe in its place.
        data, status = node_files.read_file(node_files.from_argument(path), _MOST_BYTES)
        return data, stat.S_IMODE(status.st_mode), status.st_uid
    except OSError as error:
        raise SettingsError(
            f"The key {path} cannot be read: {error.strerror or error}.",
            code="key_unreadable",
            remedy="Check the path; `rubix-token-sync evidence key FILE` makes one.",
        ) from error


def _unusable(path: Path | str, why: str) -> SettingsError:
    return SettingsError(
        f"{path} does not hold an Ed25519 key that can be used here: {why}.",
        code="key_unusable",
        remedy="Make one with `rubix-token-sync evidence key FILE`, or name the public half of "
        "a key that your ssh-agent holds.",
    )


def _parse_private(data: bytes, path: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    load = (
        serialization.load_ssh_private_key
        if b"OPENSSH PRIVATE KEY" in data
        else serialization.load_pem_private_key
    )
    try:
        found = load(data, None)
    except TypeError:  # what the library raises of a pass phrase that is wanted
        raise _unusable(path, "it has a pass phrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _unusable(path, "it cannot be parsed") from None
    if not isinstance(found, Ed25519PrivateKey):
        raise _unusable(path, "it is of another kind")
    return found


def parse_public_key(data: bytes, path: Path | str) -> PublicKey:
    """`read_public_key`, of what a file holds."""
    text = data.decode("ascii", "replace").strip()
    try:
        if text.startswith("-----BEGIN PUBLIC KEY-----"):
            body = "".join(text.splitlines()[1:-1])
            der = base64.b64decode(body, validate=True)
            if der.startswith(_DER) and len(der) == len(_DER) + 32:
                return PublicKey(der[len(_DER) :])
        elif text.startswith("ssh-ed25519 "):
            raw = base64.b64decode(text.split()[1], validate=True)
            if raw.startswith(_string(_SSH)) and len(raw) == 51:
                return PublicKey(raw[19:])
        elif text.count("+") >= 2:
            name, _, rest = text.partition("+")
            digits, _, encoded = rest.partition("+")
            raw = base64.b64decode(encoded, validate=True)
            if len(raw) == 33 and raw[0] == 1:
                key = PublicKey(raw[1:])
                if (name, digits) == (key.origin, key.key_id.hex()):
                    return key
    except ValueError:
        raise _unusable(path, "it cannot be parsed") from None
    raise _unusable(path, "neither PEM, nor a line of OpenSSH, nor a verifier key")


def _public_half(private: Ed25519PrivateKey) -> PublicKey:
    from cryptography.hazmat.primitives import serialization

    raw = private.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw
    )
    return PublicKey(raw)


class _FileSigner:
    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = _public_half(private)

    def sign(self, data: bytes) -> bytes:
        return self._private.sign(data)


class _AgentSigner:
    """Asks an ssh-agent (draft-miller-ssh-agent): request 13, answer 14."""

    def __init__(self, public: PublicKey) -> None:
        self.public = public

    def sign(self, data: bytes) -> bytes:
        answer = self._ask(b"\x0d" + _string(self.public.ssh_blob) + _string(data) + bytes(4))
        # The answer holds a string that holds two: the algorithm and the signature.
        expected = b"\x0e" + struct.pack(">I", 83) + _string(_SSH) + struct.pack(">I", 64)
        if not answer.startswith(expected) or len(answer) != len(expected) + 64:
            raise SettingsError(
                "The ssh-agent does not sign with this key.",
                code="agent_refused",
                remedy="`ssh-add -l` lists the keys that it holds; add this one by `ssh-add`.",
            )
        return answer[len(expected) :]

    def _ask(self, request: bytes) -> bytes:
        try:
            with socket.socket(socket.AF_UNIX) as agent:
                agent.settimeout(_AGENT_SECONDS)
                agent.connect(os.environ.get("SSH_AUTH_SOCK", ""))
                agent.sendall(_string(request))
                with agent.makefile("rb") as stream:
                    (size,) = struct.unpack(">I", stream.read(4))
                    return stream.read(min(size, _MOST_BYTES))
        except (OSError, struct.error) as error:
            raise SettingsError(
                "This is a public key, and no ssh-agent that would sign for it can be reached.",
                code="agent_unreachable",
                remedy="Name the file with the private key, or start an agent and set "
                "SSH_AUTH_SOCK.",
            ) from error


def _string(data: bytes) -> bytes:
    """As SSH writes a string: its length in four bytes, then itself."""
    return struct.pack(">I", len(data)) + data


def _ssh_signed(data: bytes) -> bytes:
    """What an SSHSIG really signs."""
    return b"SSHSIG" + b"".join(
        map(_string, (NAMESPACE.encode(), b"", b"sha512", sha512(data).digest()))
    )


def sshsig(signer: Signer, data: bytes) -> str:
    """A signature that `ssh-keygen -Y verify` checks (OpenSSH's PROTOCOL.sshsig)."""
    signature = signer.sign(_ssh_signed(data))
    blob = (
        b"SSHSIG"
        + struct.pack(">I", 1)
        + b"".join(
            map(
                _string,
                (
                    signer.public.ssh_blob, NAMESPACE.encode(), b"", b"sha512",
                    _string(_SSH) + _string(signature),
                ),
            )
        )
    )  # fmt: skip
    text = base64.b64encode(blob).decode()
    lines = [text[at : at + 70] for at in range(0, len(text), 70)]
    return "\n".join(["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----", ""])


def check_sshsig(key: PublicKey, armored: str, data: bytes) -> bool:
    """Whether it is exactly the form that `sshsig` writes, and signs ``data``."""
    lines = armored.splitlines()
    try:
        blob = base64.b64decode("".join(lines[1:-1]), validate=True)
    except ValueError:
        return False
    signature = blob[-64:]

    class Known:
        public = key

        def sign(self, _data: bytes) -> bytes:
            return signature

    return armored == sshsig(Known(), data) and key.verifies(signature, _ssh_signed(data))
