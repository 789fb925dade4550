"""What the documents say is so: the README's application runs, and the tables name what there is."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from oncue import State
from oncue.job import FINAL

ROOT = Path(__file__).parent.parent


def python_blocks(file: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / file).read_text(encoding="utf-8"), re.DOTALL)


def test_the_readmes_application_does_what_the_readme_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    testclient = pytest.importorskip("fastapi.testclient", reason="pip install 'oncue[fastapi]'")
    monkeypatch.chdir(tmp_path)
    module: dict[str, Any] = {"__name__": "readme"}
    exec(compile(python_blocks("README.md")[0], "README.md", "exec"), module)
    with testclient.TestClient(module["app"]) as client:
        accepted = client.post("/count", params={"text": "to be or not to be"})
        assert accepted.status_code == 202
        job_id = accepted.json()["job_id"]
        deadline = time.monotonic() + 10
        answer = client.get(f"/jobs/{job_id}/result", params={"wait": 5})
        while answer.status_code == 202 and time.monotonic() < deadline:
            answer = client.get(f"/jobs/{job_id}/result", params={"wait": 5})
        assert answer.json() == {"to": 2, "be": 2, "or": 1, "not": 1}
    assert (tmp_path / "jobs.db").exists()


@pytest.mark.parametrize("block", range(len(python_blocks("README.md"))))
def test_the_readmes_code_is_python(block: int) -> None:
    source = python_blocks("README.md")[block].replace("async for event in job.events(): ...", "pass")
    compile("async def example():\n" + re.sub(r"^", "    ", source, flags=re.MULTILINE), "README.md", "exec")


def test_the_table_of_states_names_each_state_once() -> None:
    table = re.findall(
        r"^\| `(\w+)` \| [^|]+ \| T", (ROOT / "docs/states.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(table) == sorted(state.value for state in State)


def test_the_diagram_lets_every_state_be_entered_and_left() -> None:
    arrows = re.findall(
        r"^    (\S+) --> (\w+|\[\*\]):", (ROOT / "docs/states.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {to for _, to in arrows} - {"[*]"} == {state.value for state in State}
    assert {left for left, _ in arrows} - {"[*]"} == {state.value for state in State}
    assert {left for left, to in arrows if to == "[*]"} <= {state.value for state in FINAL}
