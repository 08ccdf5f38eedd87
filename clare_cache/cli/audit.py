"""`clare-cache manifest audit`: what files give away, before and after training."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clare_cache.cli.options import AsJson, ManifestFile, Root, Workers
from clare_cache.cli.output import count, print_failures, print_json, print_result, print_table, say
from clare_cache.cli.progress import show_progress

if TYPE_CHECKING:
    from clare_cache.audit import Finding, MatchedScore


def audit(
    manifest: ManifestFile,
    root: Root = Path(),
    runs: Annotated[
        list[Path],
        typer.Option(help="Run folders with predictions: score them on matched pairs; repeatable."),
    ] = [],  # noqa: B006
    split: Annotated[
        list[str], typer.Option(help="Splits to look at, repeatable; default all.")
    ] = [],  # noqa: B006
    view: Annotated[str, typer.Option(help="With --runs: the view whose scores are used.")] = (
        "clean"
    ),
    through: Annotated[
        str | None,
        typer.Option(help="Audit the pictures that this view makes, e.g. matched-jpeg-q90."),
    ] = None,
    per: Annotated[
        int, typer.Option(min=0, help="Images of each source and generator to look at; 0: all.")
    ] = 2000,
    accept: Annotated[
        bool, typer.Option("--accept", help="Status 0 even when there is a shortcut.")
    ] = False,
    workers: Workers = 4,
    json: AsJson = False,
) -> None:
    """Find out how far format, size, compression and metadata alone tell fakes from reals."""
    from clare_cache.workflow.audit import audit_manifest

    with show_progress() as on_progress:
        report = audit_manifest(
            manifest,
            root=root,
            runs=runs,
            splits=split,
            view=view,
            through=through,
            per=per or None,
            workers=workers,
            on_progress=on_progress,
        )
    if json:
        print_json(report.as_dict())
    else:
        _print_findings(report.audit.findings)
        for run, scores in report.matched.items():
            _print_matched(run, scores)
        for sentence in report.advice:
            print_result(sentence)
        shortcuts = sum(f.verdict == "shortcut" for f in report.audit.findings)
        print_result(
            f"{manifest}: {count(report.n_images, 'image')} looked at, "
            f"{count(shortcuts, 'shortcut')} in {count(len(report.audit.findings), 'comparison')}"
        )
    if report.failures:
        say(f"{count(len(report.failures), 'file')} could not be looked at:")
        print_failures([vars(failure) for failure in report.failures])
    if report.audit.has_shortcut and not accept:
        raise typer.Exit(1)


def _print_findings(findings: Sequence["Finding"]) -> None:
    rows = []
    for finding in findings:
        telling = [c for c in finding.carriers if c.auc_alone > 0.5]
        strongest = sorted(telling, key=lambda c: -c.auc_alone)[:3]
        rows.append(
            (
                _who(finding.source, finding.generator),
                f"{finding.n_real:,}",
                f"{finding.n_fake:,}",
                _interval(finding.auc, finding.auc_low, finding.auc_high),
                finding.verdict,
                "; ".join(f"{c.trait} {c.auc_alone:.2f} (−{max(c.auc_lost, 0):.2f})"
                          for c in strongest),
            )
        )  # fmt: skip
    columns = ("fakes", "real", "fake", "AUC of files alone", "verdict", "trait: AUC alone (lost)")
    print_table(columns, rows, title="What the files give away")


def _print_matched(run: str, scores: Sequence["MatchedScore"]) -> None:
    rows = [
        (
            f"{score.split}, {_who(score.source, score.generator)}",
            f"{score.n_real:,} / {score.n_fake:,}",
            f"{score.average_precision:.3f}",
            f"{score.n_pairs:,}",
            _interval(score.matched, score.matched_low, score.matched_high),
        )
        for score in scores
    ]
    columns = ("images", "real / fake", "AP, balanced", "pairs", "AP of matched pairs")
    print_table(columns, rows, title=f"{run}, on pairs of files that look alike from outside")


def _who(source: str, generator: str) -> str:
    return generator if source in (generator, "all") else f"{source}: {generator}"


def _interval(value: float, low: float, high: float) -> str:
    return "–" if value != value else f"{value:.3f} ({low:.3f} to {high:.3f})"
