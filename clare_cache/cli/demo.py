"""`clare-cache demo`: everything once, on images made on the spot."""

from pathlib import Path
from typing import Annotated

import typer

from clare_cache.cli.output import print_result, say
from clare_cache.cli.progress import show_progress


def demo(
    out: Annotated[Path, typer.Option(help="Folder for images, store, runs and report.")] = Path(
        "demo-out"
    ),
) -> None:
    """The whole pipeline on a small image set that it makes, on CPU, ending in report.html."""
    from clare_cache.workflow.demo import run_demo

    with show_progress() as on_progress:
        result = run_demo(out, on_progress=on_progress, on_step=say)
    for line in result.summary:
        print_result(line)
    print_result(f"report: {result.report}")
