"""Boxes of pictures that no manifest lists: a table with the columns `path` and `boxes`."""

from pathlib import Path

from clare_cache.errors import ManifestError
from clare_cache.manifest import boxes
from clare_cache.manifest.table import faulty_rows, read_table, refuse

COLUMNS = ("path", "boxes")


def read_box_table(path: str | Path, root: str | Path = ".") -> dict[str, str]:
    """Real path of a picture → its boxes as JSON text, as in a manifest, which is such a table.

    Other columns are not looked at; pictures without boxes are left out. Paths are relative to
    `root`. Raises ManifestError listing every fault; rows count from 1.
    """
    table = read_table(Path(path))
    absent = [f"{name}: the column is missing" for name in COLUMNS if name not in table]
    refuse(f"boxes {path}", absent, advice=f"Columns of a table of boxes: {', '.join(COLUMNS)}.")
    cells = table["boxes"].map(boxes.as_cell).astype("string").replace("", None)
    paths = table["path"].astype("string")
    refuse(
        f"boxes {path}",
        faulty_rows(paths.duplicated() & paths.notna(), paths, "each picture once"),
        faulty_rows(paths.isna(), paths, "a path"),
        faulty_rows(cells.map(boxes.is_faulty, na_action="ignore").eq(True).fillna(False), cells,
                    boxes.EXPECTED),
        advice="Rows count from 1.",
    )  # fmt: skip
    if not cells.notna().any():
        raise ManifestError(f"boxes {path}: expected boxes, found none in {len(table)} rows.")
    return {
        str((Path(root) / str(name)).resolve()): str(cell)
        for name, cell in zip(paths[cells.notna()], cells[cells.notna()], strict=True)
    }
