"""VERIFY.md, executed where this program is not: OpenSSL, OpenSSH, coreutils, Python alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rubix_token_sync.evidence import form
from tests.evidence.conftest import Signed
from tests.evidence.forging import sign_again
from tests.evidence.test_proofs import proof_of

TOOLS = ("openssl", "ssh-keygen", "sha256sum", "sed", "sh")
pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, TOOLS)), reason=f"not all of {', '.join(TOOLS)} are here"
)


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of programs in which Python has its standard library only."""
    directory = tmp_path_factory.mktemp("bin")
    (directory / "python3").symlink_to(os.path.realpath(sys.executable))
    shown = shell(directory, directory, "python3 -I -S -c 'import rubix_token_sync'")
    assert shown.returncode == 1
    assert "ModuleNotFoundError" in shown.stderr
    return directory


def shell(programs: Path, place: Path, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-eu", "-c", script],
        cwd=place,
        env={"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(programs), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def blocks(directory: Path) -> list[str]:
    text = (directory / form.GUIDE).read_text(encoding="utf-8")
    return re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_its_commands_accept_the_evidence(signed: Signed, copy: Path, elsewhere: Path) -> None:
    commands = blocks(copy)
    assert len(commands) == 5
    done = shell(elsewhere, copy, "".join(commands))
    assert done.returncode == 0, done.stderr
    assert "Signature Verified Successfully" in done.stdout
    assert 'Good "rubix-token-sync-evidence" signature for evidence' in done.stdout
    assert "As it was signed" in done.stdout
    fingerprint = re.search(r"SHA256:\S+", (copy / form.GUIDE).read_text())
    assert fingerprint is not None
    assert fingerprint[0] in done.stdout


@pytest.mark.parametrize(
    ("name", "block"),
    [(form.TEXT, 1), (form.RAW_SIGNATURE, 1), (form.SSH_SIGNATURE, 1), (form.SUMS, 2),
     (form.RECORDS, 2), (form.LEAVES, 3), (form.BLOCKS, 3)],
)  # fmt: skip
def test_each_step_refuses_what_it_is_for(
    copy: Path, elsewhere: Path, name: str, block: int
) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    commands = blocks(copy)
    (copy / name).write_bytes(data)
    assert shell(elsewhere, copy, commands[block]).returncode != 0


def test_a_proof_by_hand(signed: Signed, tmp_path: Path, elsewhere: Path) -> None:
    """In a shell, without Python: each place of the tree's shape; a forged one is refused."""
    (function,) = [one for one in blocks(signed.directory) if "check_proof()" in one]
    size = int((signed.directory / form.TEXT).read_text().split("\n")[1])
    for index in (0, 255, 256, size - 1):
        (tmp_path / "p").write_text(proof_of(signed.directory, index))
        done = shell(elsewhere, tmp_path, f"{function}\ncheck_proof p")
        assert done.returncode == 0, (index, done.stderr)
    text = proof_of(signed.directory, 4).replace("index 4", "index 5")
    (tmp_path / "p").write_text(text)
    assert shell(elsewhere, tmp_path, f"{function}\ncheck_proof p").returncode != 0


def test_one_record_by_hand(signed: Signed, tmp_path: Path, elsewhere: Path) -> None:
    """A tree of one leaf has a proof without hashes."""
    from tests.evidence.forging import edit_lines

    one = shutil.copytree(signed.directory, tmp_path / "one")
    edit_lines(lambda lines: lines[:1])(one, signed)
    sign_again(one, signed.key, tree=True)
    (function,) = [found for found in blocks(one) if "check_proof()" in found]
    (tmp_path / "p").write_text(proof_of(one, 0))
    assert shell(elsewhere, tmp_path, f"{function}\ncheck_proof p").returncode == 0


def verifier(
    elsewhere: Path, directory: Path, *arguments: object
) -> subprocess.CompletedProcess[str]:
    words = " ".join(f"'{one}'" for one in ("verify.py", *arguments))
    return shell(elsewhere, directory, f"python3 -I -S {words}")


def test_the_verifier_by_itself(signed: Signed, copy: Path, elsewhere: Path) -> None:
    assert verifier(elsewhere, copy, copy, "--key", signed.public).returncode == 0
    unnamed = verifier(elsewhere, copy, copy)
    assert unnamed.returncode == 1
    assert "Who signed it was not checked" in unnamed.stdout
    other = verifier(elsewhere, copy, copy, "--key", signed.other_key.with_name("other.pub"))
    assert (other.returncode, other.stdout[:8]) == (5, "REFUSED:")
    proof = copy.with_name("proof")
    proof.write_text(proof_of(signed.directory, 3))
    shown = verifier(elsewhere, copy, proof, "--key", signed.public)
    assert shown.returncode == 0
    assert json.loads(shown.stdout.rpartition("}")[0] + "}")["@type"] == "rubix-token-record/1"
    assert verifier(elsewhere, copy, proof).returncode == 2
    (copy / form.MANIFEST).write_text("[" * 100_000)
    assert verifier(elsewhere, copy, copy, "--key", signed.public).returncode == 5


def test_what_it_needs() -> None:
    """The standard library, and nothing that could come from elsewhere."""
    text = (Path(form.__file__).parent / "standalone.py").read_text(encoding="utf-8")
    imported = re.findall(r"^(?:import|from) (\S+)", text, re.MULTILINE)
    assert set(imported) <= {"__future__", *sys.stdlib_module_names}
    assert not re.search(r"\b(subprocess|socket|eval|exec|open\([^)]*\"w)", text)
