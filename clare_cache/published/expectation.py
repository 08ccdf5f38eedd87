"""Which row of which published table an experiment should come near to. Imports no pandas."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from clare_cache.errors import ReportError


class Expectation(BaseModel):
    """A row of a published table, named by its own words."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str
    """Name in `clare-cache published list`, e.g. `rine/table-2`."""
    method: str
    training: str = ""
    variant: str = ""
    """`{option}` stands for the head's own value: one row for each head of a sweep."""
    view: str = ""
    """Only the numbers of this view; empty: of all that the row has."""
    heads: tuple[str, ...] = ()
    """Labels of the recipe's heads that it is about; empty: of every head."""
    average: Mapping[str, float] = Field(default_factory=dict)
    """Metric → the row's printed average; where none is printed, the mean of its test sets."""

    def of_head(self, options: Mapping[str, Any]) -> "Expectation":
        """The row with the head's options in the place of `{option}`.

        Raises ReportError for an option that the head does not have.
        """
        try:
            variant = self.variant.format_map({k: _spoken(v) for k, v in options.items()})
        except (KeyError, ValueError, IndexError) as error:
            raise ReportError(
                f"published row {self.table}: expected options {', '.join(sorted(options))} in "
                f"braces, found {self.variant}. Correct its variant."
            ) from error
        return self.model_copy(update={"variant": variant})

    def is_about(self, label: str) -> bool:
        """Whether the row stands beside the head of this label."""
        return not self.heads or label in self.heads

    @property
    def row(self) -> str:
        """The row in words: `RINE (Ours), ProGAN 2-class`."""
        return ", ".join(part for part in (self.method, self.variant, self.training) if part)


def _spoken(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
