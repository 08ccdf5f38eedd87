"""Runs → one self-contained HTML page, or a table for a paper. The only importer of matplotlib and
jinja2."""

from clare_cache.report.page import build_report
from clare_cache.report.paper import FORMS, paper_table
from clare_cache.report.pictures import Picture
from clare_cache.report.runs import label_runs

__all__ = ["FORMS", "Picture", "build_report", "label_runs", "paper_table"]
