"""The shortcut audit as the user calls it, with what to do about what it finds."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from clare_cache.audit import (
    Audit,
    Finding,
    MatchedScore,
    audit_shortcuts,
    gather_traits,
    score_matched,
)
from clare_cache.errors import ImageError, ManifestError, ReportError, raise_faults
from clare_cache.evaluate import read_predictions
from clare_cache.images import View, find_view
from clare_cache.manifest import Manifest
from clare_cache.types import CLEAN, FAKE, REAL, Failure, OnProgress, ignore_progress
from clare_cache.workflow.results import PREDICTIONS_FILE, find_tested_runs

MATCHED_VIEW = "matched-jpeg-q90"
PER = 2000
"""Images of each source and generator that are looked at by default; a sample settles an AUC."""


@dataclass(frozen=True)
class AuditReport:
    """What was found, what to do about it, and the files that could not be looked at.

    `matched`: run → its scores on matched pairs, when runs were given.
    """

    audit: Audit
    advice: tuple[str, ...]
    failures: tuple[Failure, ...]
    n_images: int
    matched: dict[str, list[MatchedScore]]

    def as_dict(self) -> dict[str, Any]:
        """The report for machines."""
        return {
            "n_images": self.n_images,
            "shortcut": self.audit.has_shortcut,
            "findings": [asdict(finding) for finding in self.audit.findings],
            "advice": list(self.advice),
            "matched": {
                run: [asdict(score) for score in scores] for run, scores in self.matched.items()
            },
            "failures": [vars(failure) for failure in self.failures],
        }


def audit_manifest(
    manifest: str | Path | Manifest,
    *,
    root: str | Path = ".",
    runs: Sequence[str | Path] = (),
    splits: Sequence[str] = (),
    view: str = CLEAN,
    through: str | None = None,
    per: int | None = PER,
    workers: int = 4,
    on_progress: OnProgress = ignore_progress,
) -> AuditReport:
    """Whether a manifest's files give its labels away; with `runs`, what heads are worth on pairs
    of files that look alike from the outside.

    `per` images of each source and generator are looked at (None: all; with runs always all).
    `through` a view, the pictures that it makes are audited instead of the files. Raises
    ManifestError when real or fake images are absent, or no file can be looked at; ReportError
    for runs that scored nothing of this.
    """
    rows = manifest if isinstance(manifest, Manifest) else Manifest.read(manifest)
    if splits:
        rows = rows.where(split=list(splits))
    n_real, n_fake = (int((rows.rows["label"] == kind).sum()) for kind in (REAL, FAKE))
    if not n_real or not n_fake:
        raise ManifestError(
            f"manifest audit: expected real and fake images, found {n_real} real and {n_fake} "
            "fake. Audit what is to be told apart."
        )
    found = find_tested_runs(runs) if runs else []
    predictions = {str(run): read_predictions(run / PREDICTIONS_FILE) for run in found}
    _refuse_foreign_runs(predictions, rows, view)
    table, failures = gather_traits(
        rows,
        root,
        per=None if found else per,
        workers=workers,
        through=None if through is None else _view(through),
        on_progress=on_progress,
    )
    if table["label"].nunique() < 2:
        raise ManifestError(
            f"manifest audit: {len(failures)} of {len(rows)} images cannot be looked at below "
            f"{root}, the first is {failures[0].path}: {failures[0].reason}. Correct --root."
        )
    audited = audit_shortcuts(_sampled(table, per) if found else table, on_progress=on_progress)
    return AuditReport(
        audit=audited,
        advice=tuple(advice_on(audited, files=_files(manifest, root), through=through)),
        failures=tuple(failures),
        n_images=len(table),
        matched={
            run: score_matched(table, scores, view=view) for run, scores in predictions.items()
        },
    )


def advice_on(audit: Audit, *, files: "Files", through: str | None = None) -> list[str]:
    """Sentences: what each shortcut is carried by, and what to do; commands name `files`."""
    name, at = files.manifest, files.root
    found = [finding for finding in audit.findings if finding.verdict == "shortcut"]
    has_sources = len({f.source for f in audit.findings if f.generator != "all"}) > 1
    sentences = [_said(f, has_sources=has_sources) for f in found]
    if len(found) > 1 and found[0].generator == "all":
        names = ", ".join(_named(f, has_sources=has_sources) for f in found[1:])
        sentences = [sentences[0], f"So are, each alone, those of {names}: see the table."]
    if audit.has_shortcut and through is not None:
        sentences.append(
            f"The view {through} leaves this: the pictures themselves differ in size or sharpness. "
            "Match the data instead: choose images of one origin, size and format, or believe only "
            f"scores on matched pairs, `clare-cache manifest audit {name}{at} --runs RUN`."
        )
    elif audit.has_shortcut:
        sentences += [
            "A detector can learn this instead of what the pictures show, and will seem to work "
            "wherever the files differ in the same way.",
            "Extract a view in which every picture has one size, format and quality, and train "
            "and test on it: "
            f"`clare-cache extract {name} STORE{at} --views clean,{MATCHED_VIEW}`. It removes what "
            "the file says, not what an earlier compression or size did to the picture; "
            f"`clare-cache manifest audit {name}{at} --through {MATCHED_VIEW}` tells what is left.",
            "After training, `clare-cache manifest audit "
            f"{name}{at} --runs RUN` scores heads on pairs of files that look alike from outside.",
        ]
    few = [
        _named(f, has_sources=has_sources) for f in audit.findings if f.verdict == "too few groups"
    ]
    if few:
        sentences.append(
            f"Not judged, real or fake images of fewer than two groups: {', '.join(few)}."
        )
    return sentences


def _view(name: str) -> View:
    try:
        return find_view(name)
    except ImageError as error:
        raise ManifestError(f"manifest audit: --through {error.reason}.") from error


def _named(finding: Finding, *, has_sources: bool) -> str:
    return f"{finding.source}: {finding.generator}" if has_sources else finding.generator


def _said(finding: Finding, *, has_sources: bool) -> str:
    carriers = [c for c in finding.carriers if c.auc_alone >= finding.auc_low] or list(
        finding.carriers[:1]
    )
    carriers = sorted(carriers, key=lambda c: -c.auc_alone)
    traits = "; ".join(f"{c.trait} (real {c.real}, fake {c.fake})" for c in carriers)
    name = _named(finding, has_sources=has_sources)
    who = "fakes" if finding.generator == "all" else f"fakes of {name}"
    return (
        f"Without seeing a picture, {who} are told from reals with an AUC of {finding.auc:.3f} "
        f"({finding.auc_low:.3f} to {finding.auc_high:.3f}), by {traits}."
    )


@dataclass(frozen=True)
class Files:
    """How a command line names the manifest and, where it must, the folder of its images."""

    manifest: str
    root: str


def _files(manifest: str | Path | Manifest, root: str | Path) -> Files:
    at = "" if Path(root) == Path() else f" --root {shlex.quote(str(root))}"
    if isinstance(manifest, Manifest):
        return Files("MANIFEST", at)
    return Files(shlex.quote(str(manifest)), at)


def _sampled(table: pd.DataFrame, per: int | None) -> pd.DataFrame:
    if per is None:
        return table
    # Ids are hashes: the lowest are as good as drawn.
    by_id = table.sort_values("image_id")
    return by_id.groupby(["source", "generator"], sort=False).head(per)


def _refuse_foreign_runs(
    predictions: Mapping[str, pd.DataFrame], rows: Manifest, view: str
) -> None:
    """Raise ReportError for runs that scored nothing of this manifest in this view."""
    ids = set(rows.image_ids)
    faults = []
    for run, scores in predictions.items():
        if view not in set(scores["view"]):
            views = ", ".join(sorted(scores["view"].unique()))
            faults.append(f"{run}: has no scores of view {view}, found {views}")
        elif not ids & set(scores["image_id"]):
            faults.append(
                f"{run}: none of its {scores['image_id'].nunique()} images is among these"
            )
    raise_faults(
        ReportError, "manifest audit --runs", faults, advice="Give runs that scored this manifest."
    )
