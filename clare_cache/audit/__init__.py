"""Does a data set give its labels away by its files? Before training, and after.

Looks at files from the outside (`images.read_traits`), at labels and at scores; never at pixels.
"""

from clare_cache.audit.gather import TRAIT_COLUMNS, gather_traits
from clare_cache.audit.matched import MatchedScore, score_matched
from clare_cache.audit.shortcuts import Audit, Carrier, Finding, audit_shortcuts

__all__ = [
    "TRAIT_COLUMNS",
    "Audit",
    "Carrier",
    "Finding",
    "MatchedScore",
    "audit_shortcuts",
    "gather_traits",
    "score_matched",
]
