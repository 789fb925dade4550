"""The house rules that tools can hold: imports point down, links lead somewhere, make names its targets."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

LAYERS = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
# One room each, so that every contract has something to hold.
ROOMS = [*re.findall(r"\w+", " ".join(LAYERS)), "engines/sqlite", "engines/redis"]


def lint_imports(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_imports_point_down() -> None:
    run = lint_imports(ROOT)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The whole house with empty rooms, under the contracts of pyproject.toml."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for room in ("", *ROOMS):
        package = tmp_path / "oncue" / room
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()
    return tmp_path


def put(house: Path, **imports: str) -> None:
    for room, statement in imports.items():
        (house / "oncue" / room.replace("__", "/") / "__init__.py").write_text(statement + "\n")


def test_what_the_house_allows_passes(house: Path) -> None:
    put(
        house,
        cli="import oncue.demo\nimport oncue.fastapi",
        app="import oncue.engines.sqlite\nimport oncue.worker",
        client="import oncue.insights",
        tasks="import oncue.retry",
        engines__sqlite="import sqlite3\nimport oncue.job",
        engines__redis="import redis.asyncio\nimport oncue.job",
        arq="import redis",
    )
    run = lint_imports(house)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("room", "statement"),
    [
        ("errors", "import oncue.job"),
        ("tasks", "import oncue.engines.sqlite"),
        ("engines__sqlite", "import oncue.retry"),
        ("engines__sqlite", "import oncue.engines.redis"),
        ("worker", "import oncue.app"),
        ("dashboard", "import oncue.fastapi"),
        ("demo", "import oncue.cli"),
        ("app", "import sqlite3"),
        ("worker", "import redis.asyncio"),
        ("engines__redis", "import sqlite3"),
    ],
)
def test_what_the_house_forbids_is_found(house: Path, room: str, statement: str) -> None:
    put(house, **{room: statement})
    run = lint_imports(house)
    importer, imported = f"oncue.{room.replace('__', '.')}", statement.removeprefix("import ").removesuffix(".asyncio")
    assert run.returncode == 1, run.stdout + run.stderr
    assert f"{importer} -> {imported} (l.1)" in run.stdout


def test_a_room_without_a_place_in_the_house_is_found(house: Path) -> None:
    (house / "oncue" / "shed.py").touch()
    run = lint_imports(house)
    assert run.returncode == 1
    assert "oncue.shed" in run.stdout


def pages() -> list[Path]:
    return [
        page
        for page in sorted(ROOT.rglob("*.md"))
        if not any(part.startswith(".") or part == "node_modules" for part in page.relative_to(ROOT).parts)
    ]


def prose(page: Path) -> str:
    """The page without its code, in which brackets are no links and # is no heading."""
    text = re.sub(r"^(```|~~~).*?^\1", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", lambda code: code.group().strip("`").translate({ord(c): None for c in "[]()"}), text)


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def relative_links() -> Iterator[tuple[Path, str]]:
    for page in pages():
        for link in re.findall(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)", prose(page)):
            if not re.match(r"[a-z][a-z+.-]*:|//", link):
                yield page, link


def test_every_relative_link_in_the_docs_leads_somewhere() -> None:
    links = list(relative_links())
    assert links, "no page links to another: is the search for links broken?"
    dead = []
    for page, link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            dead.append(f"{page.relative_to(ROOT)}: {link}")
    assert not dead


def test_the_wheel_holds_the_whole_package() -> None:
    shipped = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "oncue").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert shipped == package


def test_the_readme_is_the_page_that_package_indexes_show() -> None:
    expected = "README.md" if (ROOT / "README.md").exists() else None
    assert PROJECT["project"].get("readme") == expected


def test_make_names_each_of_its_targets() -> None:
    targets = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)[0].split()
    listed = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert re.findall(r"^  make (\w+) +\S", listed, flags=re.MULTILINE) == targets
