"""SQL is read from files and never made from values; the queries in the files are those that are used."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import oncue.engines.sqlite
from oncue.engines.sqlite.statements import load, load_script

PACKAGE = Path(oncue.engines.sqlite.__file__).parent
MODULES = sorted(PACKAGE.glob("*.py"))
# `checker.py` runs all of its queries, whatever their names; the schema has no names.
BY_NAME = sorted(
    file.name for file in (PACKAGE / "sql").glob("*.sql") if file.name not in ("schema.sql", "checker.sql")
)
RUNS_SQL = {"execute", "executemany", "executescript"}
PASSES_SQL = {"change", "insert"}  # of Unit: their first argument goes to the connection as it is
# A PRAGMA takes no parameters; these two set constants of the module.
CONSTANT_PRAGMAS = {
    "f'PRAGMA application_id = {APPLICATION_ID}'",
    "f'PRAGMA user_version = {SCHEMA_VERSION}'",
}


def uses(module: Path) -> Iterator[tuple[str, str]]:
    """Yield the file and name of each query a module takes: `_sql.name` after `_sql = load(file)`."""
    tree = ast.parse(module.read_text())
    loaded = {
        target.id: node.value.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        for target in node.targets
        if isinstance(target, ast.Name)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id == "load"
        and isinstance(node.value.args[0], ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in loaded:
            yield str(loaded[node.value.id]), node.attr


def test_every_query_is_used_and_every_used_one_is_there() -> None:
    used = {use for module in MODULES for use in uses(module)}
    there = {(file, name) for file in BY_NAME for name in vars(load(file))}
    assert used == there


def test_no_two_queries_of_a_file_have_one_name() -> None:
    for file in (*BY_NAME, "checker.sql"):
        assert load_script(file).count("-- name: ") == len(vars(load(file)))


def given_sql(module: Path) -> Iterator[ast.expr]:
    """Yield the expression of each statement that a module gives to SQLite."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            receiver = ast.unparse(node.func.value)
            if node.func.attr in RUNS_SQL or (node.func.attr in PASSES_SQL and receiver.endswith("unit")):
                yield node.args[0]


def made_of_values(statement: ast.expr) -> bool:
    """Whether a statement is put together: formatted, concatenated, or by a call of anything but the known."""
    if isinstance(statement, ast.Call) and ast.unparse(statement.func) == "_expanded":
        return False  # see below
    return any(isinstance(node, ast.JoinedStr | ast.BinOp | ast.Call) for node in ast.walk(statement))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_no_statement_is_made_of_values(module: Path) -> None:
    made = [ast.unparse(statement) for statement in given_sql(module) if made_of_values(statement)]
    assert [text for text in made if text not in CONSTANT_PRAGMAS] == []


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_no_text_with_gaps_is_a_statement(module: Path) -> None:
    # Also one that is kept in a variable first.
    templates = [
        ast.unparse(node) for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.JoinedStr)
    ]
    statements = [
        text for text in templates if re.match(r"f?['\"]+\s*(SELECT|INSERT|UPDATE|DELETE|WITH|PRAGMA)\b", text)
    ]
    assert [text for text in statements if text not in CONSTANT_PRAGMAS] == []


def test_the_search_for_made_statements_finds_them(tmp_path: Path) -> None:
    module = tmp_path / "made.py"
    module.write_text(
        "conn.execute(f'SELECT {x}')\nconn.execute('SELECT ' + x)\nconn.executescript('SELECT %s' % x)\n"
        "unit.change('SELECT {}'.format(x), rows)\nself._unit.insert(f'{x}', rows)\nconn.execute(_sql.name, (x,))\n"
    )
    assert [made_of_values(statement) for statement in given_sql(module)] == [True] * 5 + [False]


def test_what_stands_for_rows_is_made_of_question_marks_alone() -> None:
    from oncue.engines.sqlite.unit import _expanded

    for file in BY_NAME:
        for query in vars(load(file)).values():
            if "{" in query:
                assert set(_expanded(query, 3, 2)) - set(query) <= set("(?, )")
                assert "{" not in _expanded(query, 3, 2)
