"""Heads as their authors save them: read into ours, written back in their naming.

Knows file layouts and tensor names; knows no store, no run folder and no image.
"""

from clare_cache.heads.authors.convert import AUTHORS, Imported, export_head, import_head

__all__ = ["AUTHORS", "Imported", "export_head", "import_head"]
