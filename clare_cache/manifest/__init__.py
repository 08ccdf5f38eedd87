"""Which images there are, what they show, and which split they belong to.

Rows only: paths are relative to a root given at run time, pixels are never looked at (the caller
passes a `probe` for headers), features are unknown here.
"""

from clare_cache.manifest.assemble import Count, assemble, join
from clare_cache.manifest.build import BuildResult, build, build_csv, build_folder
from clare_cache.manifest.check import Fault, check
from clare_cache.manifest.contents import Header, Probe
from clare_cache.manifest.layouts import LAYOUTS, PICKS, Layout, Options
from clare_cache.manifest.split import (
    hold_out_generators,
    refuse_replacing,
    split_by_group,
    split_the_rest,
)
from clare_cache.manifest.table import COLUMNS, Manifest, refuse_suffix

__all__ = [
    "COLUMNS",
    "LAYOUTS",
    "PICKS",
    "BuildResult",
    "Count",
    "Fault",
    "Header",
    "Layout",
    "Manifest",
    "Options",
    "Probe",
    "assemble",
    "build",
    "build_csv",
    "build_folder",
    "check",
    "hold_out_generators",
    "join",
    "refuse_replacing",
    "refuse_suffix",
    "split_by_group",
    "split_the_rest",
]
