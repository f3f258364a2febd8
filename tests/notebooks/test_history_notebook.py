"""The notebook runs from top to bottom in a kernel of its own, and draws what it says it draws."""

from __future__ import annotations

import base64
import io
import shutil
import tempfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from tests.architecture.tree import ROOT

FOLDER = ROOT / "tools" / "notebooks"
NOTEBOOK = FOLDER / "history.ipynb"
PICTURES = 7


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("notebook")
    for name in ("TMPDIR", "MPLCONFIGDIR", "IPYTHONDIR"):
        patch.setenv(name, str(folder))
    # Names of sockets must be short.
    runtime = Path(tempfile.mkdtemp(prefix="nb-"))
    patch.setenv("JUPYTER_RUNTIME_DIR", str(runtime))
    patch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(NOTEBOOK, nbformat.NO_CONVERT)
    client = NotebookClient(
        notebook,
        timeout=250,
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
    )
    kernel = client.create_kernel_manager()
    kernel.transport, kernel.ip = "ipc", str(runtime / "kernel")
    try:
        client.execute()
    finally:
        patch.undo()
        shutil.rmtree(runtime)
    return notebook


def outputs(notebook, kind):
    return [
        output["data"][kind]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if kind in output.get("data", {})
    ]


def test_it_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_nothing_is_complained_of(executed):
    streams = [
        output.text
        for cell in executed.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stderr"
    ]
    assert streams == []


def test_it_draws_every_picture(executed):
    pictures = outputs(executed, "image/png")
    assert len(pictures) == PICTURES
    for picture in pictures:
        image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
        pixels = np.asarray(image)
        assert image.width > 800
        assert image.height > 200
        white = (pixels == 255).all(axis=2).mean()
        assert 0.3 < white < 0.97  # neither blank nor a blot
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_its_tables_say_what_the_store_holds(executed):
    shown = "\n".join(outputs(executed, "text/html"))
    assert "checkpoint.completed" in shown
    assert "RateLimitError" in shown or "TimeoutError" in shown or "ToolError" in shown
    assert "<b>Store</b>" in shown
    texts = "\n".join(
        output.text
        for cell in executed.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream"
    )
    assert "34 columns" in texts


def test_the_fleet_is_the_same_each_time(tmp_path, monkeypatch):
    import sys

    import ckptlog

    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    import fleet

    counts = []
    for number in range(2):
        fleet.make(tmp_path / str(number))
        with ckptlog.open(tmp_path / str(number), read_only=True) as store:
            columns = ["position", "time", "type", "task", "state_us", "error_class"]
            counts.append(store.history().to_table(columns=columns).to_pylist())
            assert store.verify().ok
    assert counts[0] == counts[1]
    assert len(counts[0]) > 2000
