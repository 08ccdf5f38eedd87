"""`clare-cache doctor`: what this machine can do, and what is missing."""

from pathlib import Path
from typing import Annotated

import typer

from clare_cache.cli.options import AsJson
from clare_cache.cli.output import count, print_json, print_result


def doctor(
    folder: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Where stores are to lie.")
    ] = Path(),
    json: AsJson = False,
) -> None:
    """What this machine can do, and what is missing, with the cure; status 1 if it cannot work."""
    from clare_cache.workflow.doctor import examine, is_broken

    findings = examine(folder)
    if json:
        print_json([vars(finding) for finding in findings])
    else:
        for finding in findings:
            cure = f"\n         → {finding.cure}" if finding.cure else ""
            print_result(f"{finding.state:8} {finding.check}: {finding.found}{cure}")
        states = [finding.state for finding in findings]
        print_result(
            f"{states.count('broken')} broken, {count(states.count('warning'), 'warning')}"
        )
    if is_broken(findings):
        raise typer.Exit(1)
