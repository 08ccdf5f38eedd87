"""Runs → one self-contained HTML page. The only importer of matplotlib and jinja2."""

from clare_cache.report.page import build_report
from clare_cache.report.pictures import Picture
from clare_cache.report.runs import label_runs
from clare_cache.report.tables import Published

__all__ = ["Picture", "Published", "build_report", "label_runs"]
