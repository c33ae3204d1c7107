"""The notebook that tries policies runs from top to bottom, on a simulated chain where there is no home."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "05_try_a_policy.ipynb"


def test_policies_are_compared_and_an_outage_is_felt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKCAST_HOME", str(tmp_path / "nothing-here"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)

    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()

    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    tables = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert [tables[0].count(f"<td>{name}</td>") for name in ("order_up_to", "usual", "clairvoyant")] == [5, 5, 5]
    assert "stockout_days" in tables[-1]
    assert len(pictures) == 2
