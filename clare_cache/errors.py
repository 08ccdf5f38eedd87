"""Every exception a user can meet, in one tree.

    ClareCacheError            anything this package raises on purpose
    ├── ManifestError          a manifest or the folder it describes is wrong
    ├── RecipeError            a recipe is wrong
    ├── BackboneError          weights cannot be loaded, or are not what was asked for
    ├── StoreError             a store is absent, damaged or of an unknown format
    │   └── StoreMismatch      a store holds features made from other declared inputs
    ├── ExtractError           stage one cannot go on (never because of one image)
    │   └── BlockFailed        a block was tried as often as blocks are
    ├── HeadError              a head cannot be built, loaded or fed
    ├── TrainError             training data or settings are unusable
    ├── ReportError            a run folder cannot be evaluated or reported
    └── ImageError             one image cannot be used; becomes a line in the ledger

One warning, VersionWarning: features were made with other releases of the libraries.

A message says what was asked, what was found, where, and what to do. Validators collect all
faults first and raise them together with `raise_faults`.
"""

from collections.abc import Sequence


class ClareCacheError(Exception):
    """Anything this package raises on purpose; the command line prints it without a traceback."""


class ManifestError(ClareCacheError):
    """A manifest, or the folder it describes, is wrong."""


class RecipeError(ClareCacheError):
    """A recipe is wrong."""


class BackboneError(ClareCacheError):
    """Weights cannot be loaded, or are not what was asked for."""


class StoreError(ClareCacheError):
    """A store is absent, damaged or of an unknown format."""


class StoreMismatch(StoreError):
    """A store holds features made from other declared inputs than the ones asked for."""


class ExtractError(ClareCacheError):
    """Stage one cannot go on, for a reason that is not one image's."""


class BlockFailed(ExtractError):
    """A block failed as often as blocks are tried; what is committed stays."""


class HeadError(ClareCacheError):
    """A head cannot be built, loaded or fed."""


class TrainError(ClareCacheError):
    """Training data or settings are unusable."""


class ReportError(ClareCacheError):
    """A run folder cannot be evaluated or reported."""


class VersionWarning(UserWarning):
    """Features of a store were made with other releases of the libraries than are here."""


class ImageError(ClareCacheError):
    """One image cannot be used.

    `stage` names the step that refused it: `read`, `decode`, or the name of an array.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason


def raise_faults(
    error: type[ClareCacheError], asked: str, faults: Sequence[str], *, advice: str = ""
) -> None:
    """Raise `error` listing every fault, one a line; do nothing when there is none."""
    if not faults:
        return
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    lines = [f"{asked}: {count}", *(f"  - {fault}" for fault in faults)]
    if advice:
        lines.append(advice)
    raise error("\n".join(lines))
