"""Protocols as the user calls them: manifests out, and the table of the runs trained on them."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from clare_cache.evaluate import assess_run, cross_table
from clare_cache.manifest import Manifest
from clare_cache.manifest.protocols import apply_protocol, find_protocol
from clare_cache.workflow.results import find_tested_runs


def write_folds(
    protocol: str, manifest: Manifest, out: str | Path, *, seed: int = 0
) -> dict[Path, Manifest]:
    """Writes `out/<fold>.parquet` for every fold of the protocol; the files with their rows."""
    written = {}
    for fold in apply_protocol(protocol, manifest, seed=seed):
        path = fold.manifest.write(Path(out) / f"{fold.name}.parquet")
        written[path] = fold.manifest
    return written


def protocol_table(protocol: str, runs: Sequence[str | Path]) -> pd.DataFrame:
    """What each evaluated run reaches on the protocol's columns (MATRIX_COLUMNS)."""
    found = [assess_run(run) for run in find_tested_runs(runs)]
    return cross_table(found, group=find_protocol(protocol).group)
