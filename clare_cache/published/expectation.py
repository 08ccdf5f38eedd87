"""Which row of which published table an experiment should come near to. Imports no pandas."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field


class Expectation(BaseModel):
    """A row of a published table, named by its own words."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str
    """Name in `clare-cache published list`, e.g. `rine/table-2`."""
    method: str
    training: str = ""
    variant: str = ""
    view: str = ""
    """Only the numbers of this view; empty: of all that the row has."""
    heads: tuple[str, ...] = ()
    """Labels of the recipe's heads that it is about; empty: of every head."""
    average: Mapping[str, float] = Field(default_factory=dict)
    """Metric → the row's printed average; where none is printed, the mean of its test sets."""

    def is_about(self, label: str) -> bool:
        """Whether the row stands beside the head of this label."""
        return not self.heads or label in self.heads

    @property
    def row(self) -> str:
        """The row in words: `RINE (Ours), ProGAN 2-class`."""
        return ", ".join(part for part in (self.method, self.variant, self.training) if part)
