"""Containerfile and compose.yaml by rules: no engine is needed, and none is trusted blindly."""

from __future__ import annotations

import fnmatch
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import hatchling.build
import pytest
import yaml

from rubix_token_sync.cli import COMMANDS, command_line

from .test_package import ROOT, files_of_git

CONTAINERFILE = ROOT / "src" / "rubix_token_sync" / "deploy" / "Containerfile"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
OURS = {name: s for name, s in COMPOSE["services"].items() if s["image"] == "rubix-token-sync"}


def instructions() -> list[tuple[str, str]]:
    """Each instruction of the Containerfile with its arguments, continued lines joined."""
    text = re.sub(r"^#.*\n", "", CONTAINERFILE.read_text("utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line.strip()]


def test_the_image_is_pinned_small_and_unprivileged() -> None:
    found = instructions()
    assert {name for name, _ in found} <= {
        "FROM", "WORKDIR", "COPY", "RUN", "USER", "VOLUME", "ENV", "EXPOSE", "ENTRYPOINT", "CMD",
        "HEALTHCHECK",
    }  # fmt: skip
    bases = [text.split()[0] for name, text in found if name == "FROM"]
    assert len(bases) == 2, "what builds stays behind"
    assert all(re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", base) for base in bases)
    users = [text for name, text in found if name == "USER"]
    assert users[-1] == "1000:1000", "a number, which an orchestrator can judge"
    for name, text in found:
        if name in ("ENTRYPOINT", "CMD"):
            assert text.startswith("["), "without a shell, signals reach the program"
        if name == "WORKDIR":
            assert text.startswith("/")
        if name == "RUN" and "apt-get install" in text:
            assert "--no-install-recommends" in text
            assert "rm -rf /var/lib/apt/lists/*" in text
            assert not re.search(r"gcc|build-essential|-dev\b|make\b", text)
        if name == "RUN" and "pip" in text and "install" in text:
            assert "--no-cache-dir" in text
            assert "-r requirements.txt" in text, "the lock"
            assert "--only-binary :all:" in text, "no compiler"
    last = [i for i, (name, _) in enumerate(found) if name == "FROM"][-1]
    final = " ".join(text for _, text in found[last:])
    assert "pip" not in final
    assert "COPY . " not in final


@pytest.mark.skipif(
    not (HADOLINT := Path(sys.executable).with_name("hadolint")).exists(),
    reason="requirements-release.txt is not installed here",
)
def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run([HADOLINT, CONTAINERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def allowed(path: str) -> bool:
    """Whether .dockerignore lets a file in: the last rule that fits decides."""
    let_in = True
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        parents = ["/".join(path.split("/")[:n]) for n in range(1, path.count("/") + 2)]
        plain = pattern.removeprefix("**/")
        if any(
            fnmatch.fnmatchcase(part.rsplit("/", 1)[-1] if plain != pattern else part, plain)
            and (plain != pattern or pattern.count("/") == part.count("/"))
            for part in parents
        ):
            let_in = line.startswith("!")
    return let_in


def test_the_builds_context_makes_the_same_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What .dockerignore leaves out is not missed, and nothing private comes along."""
    names = sorted(name for name in files_of_git() if allowed(name))
    assert not [name for name in names if name.startswith(("tests/", ".git", "benchmarks/"))]
    for private in ("azure_sql_connection.txt", "rubix-tokens.db", "secrets/x", ".git/config"):
        assert not allowed(private)
    for name in names:
        place = tmp_path / "context" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place, follow_symlinks=False)
    wheels = []
    for source in (ROOT, tmp_path / "context"):
        monkeypatch.chdir(source)
        to = tmp_path / f"wheel-{len(wheels)}"
        to.mkdir()
        wheels.append((to / hatchling.build.build_wheel(str(to))).read_bytes())
    assert wheels[0] == wheels[1]


def test_services_are_pinned_closed_and_complete() -> None:
    for name, service in COMPOSE["services"].items():
        image = service["image"]
        assert name in OURS or re.search(r":v?\d+\.\d+(\.\d+)?(-\w+)?$", image), image
        assert not service.get("privileged")
        assert "no-new-privileges:true" in service.get("security_opt", []) or name == "db"
        assert service.get("cap_drop") == ["ALL"] or name == "db", "which changes its user itself"
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"], "nothing of the host"
        for other in service.get("depends_on", []):
            assert other in COMPOSE["services"]
            wants = service["depends_on"]
            if isinstance(wants, dict) and wants[other]["condition"] == "service_healthy":
                assert "healthcheck" in COMPOSE["services"][other]
        for config in service.get("configs", []):
            assert config["source"] in COMPOSE["configs"]
        assert not [key for key in service.get("environment", {}) if key.endswith("PASSWORD")]
    for config in COMPOSE["configs"].values():
        assert (
            yaml.safe_load(config["content"])
            if "content" in config
            else (ROOT / config["file"]).exists()
        )
    for name, service in OURS.items():
        assert service["read_only"] is True, name
        assert (ROOT / service["build"]["dockerfile"]) == CONTAINERFILE
        assert name == "secrets" or "user" not in service
        lasts = "restart" in service
        assert ("healthcheck" in service) is lasts, name


def commands() -> list[list[str]]:
    """Every command line of our program in compose.yaml."""
    found = []
    for service in OURS.values():
        if "entrypoint" not in service:
            found.append(service["command"])
        else:
            (script,) = service["command"]
            found += [shlex.split(line)[1:] for line in map(str.strip, script.splitlines())
                      if line.startswith("rubix-token-sync ")]  # fmt: skip
        test = service.get("healthcheck", {}).get("test", [])
        if "rubix-token-sync" in test:
            found.append(test[test.index("rubix-token-sync") + 1 :])
    return found


def test_the_program_knows_every_command() -> None:
    lines = commands()
    assert {line[0] for line in lines} == {"demo", "sync", "serve", "status"}
    for name, *arguments in lines:
        assert name in COMMANDS, name
        command = command_line.get_command(click.Context(command_line), name)
        assert command is not None
        names = ["-h", "--help"]  # as below the program: a command keeps what it is first given
        command.make_context(
            name, list(arguments), help_option_names=names
        )  # a usage error for what it does not know
