"""The known ways to arrange a data set on disk, each a small class, by name.

To add one: a class with `name`, `summary`, `tree`, `takes` and `survey` (see `listing.Layout`), a
line in LAYOUTS, and a miniature of the real tree in `tests/miniatures`.
"""

from clare_cache.manifest.layouts.clipping import Clipping
from clare_cache.manifest.layouts.faces import DeepfakeBench, Df40
from clare_cache.manifest.layouts.folder import Folder
from clare_cache.manifest.layouts.forensynths import ForenSynths, UfdDiffusion
from clare_cache.manifest.layouts.frames import PICKS
from clare_cache.manifest.layouts.genimage import GenImage
from clare_cache.manifest.layouts.hub import HfImageFolder
from clare_cache.manifest.layouts.listing import Entry, Layout, Listing, Options
from clare_cache.manifest.layouts.synthbuster import SidBench, Synthbuster
from clare_cache.manifest.layouts.table import Table
from clare_cache.manifest.layouts.tars import WebDataset
from clare_cache.manifest.layouts.text_lists import LareList, LdmTrainingSet

_ALL: tuple[Layout, ...] = (
    Folder(),
    Table(),
    ForenSynths(),
    UfdDiffusion(),
    GenImage(),
    Df40(),
    DeepfakeBench(),
    Synthbuster(),
    LdmTrainingSet(),
    LareList(),
    SidBench(),
    Clipping(),
    HfImageFolder(),
    WebDataset(),
)
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _ALL}

__all__ = ["LAYOUTS", "PICKS", "Entry", "Layout", "Listing", "Options"]
