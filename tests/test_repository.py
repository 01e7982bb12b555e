"""What holds for the repository as a whole: its locks, scripts and documents tell the truth about it.

Knows files, not behaviour: nothing of the gateway runs here.
"""

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import gateway

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
SCRIPTS = sorted(file for file in (ROOT / "scripts").iterdir() if file.is_file() and not file.suffix)
DOCUMENTS = sorted(chain(ROOT.glob("*.md"), (ROOT / "docs").rglob("*.md")))


def named(file: Path) -> str:
    return str(file.relative_to(ROOT))


def our_files() -> Iterator[Path]:
    """Every file that is, or is about to be, under version control."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file():
            yield ROOT / name


def lines_that_match(pattern: str) -> list[str]:
    found = []
    for file in our_files():
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        found += [f"{named(file)}:{i}: {line[:120]}" for i, line in enumerate(lines, 1) if re.search(pattern, line)]
    return found


# Which machine, which registry: each machine's own business.


def test_no_file_names_a_package_registry() -> None:
    hosts = r"\b(?:py" + r"pi|pythonhosted|npm" + r"js|yarn" + r"pkg)\.(?:org|com|python)\b"
    downloads = r"https?://[^ \"]+(?:\.whl|\.tgz|/sim" + r"ple/?)(?:[#\" ]|$)"
    options = r"--(?:extra-)?index" + r"-url[ =]\S|--find" + r"-links[ =]\S"
    assert lines_that_match(f"{hosts}|{downloads}|{options}") == []


def test_no_file_names_a_path_of_one_machine() -> None:
    assert lines_that_match(r"(?:^|[^A-Za-z0-9_.])/(?:work|root|Users|home)/") == []


# Locks.


def locked(lock: Path) -> dict[str, str]:
    """Names and versions of a lock file."""
    pins = re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}


@pytest.mark.parametrize("lock", LOCKS, ids=named)
def test_every_locked_requirement_has_a_version_and_hashes(lock: Path) -> None:
    text = re.sub(r"^ *#.*\n", "", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert blocks
    for block in blocks:
        pin, *hashes = block.split(" \\\n")
        assert re.match(r"[\w.-]+==\S+( ; .+)?$", pin), block
        assert hashes, block
        assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}", each) for each in hashes), block


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [
        ("runtime", PROJECT["project"]["dependencies"]),
        ("build", PROJECT["build-system"]["requires"]),
        *PROJECT["dependency-groups"].items(),
        *PROJECT["project"]["optional-dependencies"].items(),
    ],
)
def test_a_lock_holds_what_the_project_asks_for(lock: str, requirements: list[str]) -> None:
    pins = locked(ROOT / "requirements" / f"{lock}.txt")
    for requirement in map(Requirement, requirements):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_locks_agree_so_that_one_environment_can_hold_them_all() -> None:
    versions: dict[str, set[str]] = {}
    for name, version in chain.from_iterable(locked(lock).items() for lock in LOCKS):
        versions.setdefault(name, set()).add(version)
    assert {name: both for name, both in versions.items() if len(both) > 1} == {}


def test_every_node_package_is_locked_by_hash_and_without_an_address() -> None:
    lock = json.loads((ROOT / "tests/clients/package-lock.json").read_text(encoding="utf-8"))
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name


# Scripts and deployment.


@pytest.mark.parametrize("script", SCRIPTS, ids=named)
def test_every_script_is_executable_and_plain_sh(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", script], check=True)


def test_compose_publishes_on_loopback_only() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


# Documents.


def prose(document: Path) -> str:
    """The text of a document without its fenced code."""
    return re.sub(r"^ *```.*?^ *```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ +(.+?) *$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_link_inside_the_repository_leads_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_path_that_a_document_mentions_exists(document: Path) -> None:
    roots = sorted(entry.name for entry in ROOT.iterdir() if entry.is_dir())
    path = rf"`((?:{'|'.join(map(re.escape, roots))})/[\w./*-]*)`"
    for mentioned in re.findall(path, prose(document)):
        assert any(ROOT.glob(mentioned.rstrip("/"))), mentioned


def layers_in_use() -> list[set[str]]:
    (contract,) = (each for each in PROJECT["tool"]["importlinter"]["contracts"] if each["type"] == "layers")
    return [{room.strip().removeprefix("gateway.") for room in layer.split("|")} for layer in contract["layers"]]


def layers_in_the_document() -> list[set[str]]:
    """The first column of the table under the heading `Layers`: one row a layer, its rooms as code."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = re.split(r"^#+ Layers\b.*$", text, maxsplit=1, flags=re.MULTILINE)[1]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert table is not None
    cells = [row.split("|")[1] for row in table[0].splitlines()[2:]]
    return [set(re.findall(r"`gateway\.([^`]+)`", cell)) for cell in cells]


def test_the_table_of_layers_is_what_the_import_linter_enforces() -> None:
    assert layers_in_the_document() == layers_in_use()


def test_every_room_of_the_package_has_a_layer() -> None:
    entries = {entry for entry in (ROOT / "gateway").iterdir() if entry.suffix == ".py" or entry.is_dir()}
    rooms = {entry.stem for entry in entries if entry.stem not in ("__init__", "__pycache__")}
    assert rooms - set().union(*layers_in_use()) == set()


def test_the_changelog_tells_of_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[?{re.escape(gateway.__version__)}\b", changelog, re.MULTILINE)
