"""The notebooks under experiments/notebooks as pages, with the outputs that are stored in them."""

import shutil
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
NOTEBOOKS = HERE.parent / "experiments" / "notebooks"


def copy_in(app: Any, config: Any) -> None:
    """Copy the notebooks to where sources are looked for; the copies are not kept in the repository."""
    folder = HERE / "notebooks"
    folder.mkdir(exist_ok=True)
    wanted = {path.name for path in NOTEBOOKS.glob("*.ipynb")}
    for old in folder.glob("*.ipynb"):
        if old.name not in wanted:
            old.unlink()
    for name in wanted:
        copy = folder / name
        if not copy.exists() or copy.read_bytes() != (NOTEBOOKS / name).read_bytes():
            shutil.copy(NOTEBOOKS / name, copy)


def setup(app: Any) -> dict[str, bool]:
    """Copy before sources are collected."""
    app.connect("config-inited", copy_in)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
