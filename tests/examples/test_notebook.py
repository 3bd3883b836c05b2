"""The notebook runs from top to bottom, in a folder of its own, and shows what it promises."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient


@pytest.mark.spark
@pytest.mark.slow
def test_the_first_notebook_runs(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    source = request.config.rootpath / "examples" / "first_job.ipynb"
    notebook = nbformat.read(source, as_version=4)
    assert not [cell for cell in notebook.cells if cell.get("outputs")], (
        "outputs do not belong in the repository"
    )
    NotebookClient(notebook, timeout=400, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [output for output in outputs if "image/png" in output.get("data", {})], "the plot was not shown"
    metrics = next(
        o["data"]["text/plain"] for o in outputs if "auc" in str(o.get("data", {}).get("text/plain"))
    )
    assert "loss" in metrics
    assert not list(tmp_path.iterdir())
