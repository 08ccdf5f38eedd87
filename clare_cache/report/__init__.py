"""Runs → one self-contained HTML page. The only importer of matplotlib and jinja2."""

from clare_cache.report.page import build_report
from clare_cache.report.pictures import Picture
from clare_cache.report.runs import label_runs

__all__ = ["Picture", "build_report", "label_runs"]
