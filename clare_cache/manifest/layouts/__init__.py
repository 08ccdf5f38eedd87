"""The known ways to arrange a data set on disk, by name.

To add one: a `listing.Tree` where folder names say all of it, else a class with `name`, `summary`,
`tree`, `takes` and `survey` (see `listing.Layout`); a line in LAYOUTS, and a miniature of the real
tree in `tests/miniatures`.
"""

from clare_cache.manifest.layouts.clipping import CLIPPING
from clare_cache.manifest.layouts.faces import DeepfakeBench, Df40
from clare_cache.manifest.layouts.folder import Folder
from clare_cache.manifest.layouts.forensynths import FORENSYNTHS, UFD_DIFFUSION
from clare_cache.manifest.layouts.frames import PICKS
from clare_cache.manifest.layouts.genimage import GENIMAGE
from clare_cache.manifest.layouts.hub import HfImageFolder
from clare_cache.manifest.layouts.listing import Entry, Layout, Listing, Options
from clare_cache.manifest.layouts.synthbuster import SIDBENCH, SYNTHBUSTER
from clare_cache.manifest.layouts.table import Table
from clare_cache.manifest.layouts.tars import WebDataset
from clare_cache.manifest.layouts.text_lists import LareList, LdmTrainingSet

_ALL: tuple[Layout, ...] = (
    Folder(),
    Table(),
    FORENSYNTHS,
    UFD_DIFFUSION,
    GENIMAGE,
    Df40(),
    DeepfakeBench(),
    SYNTHBUSTER,
    LdmTrainingSet(),
    LareList(),
    SIDBENCH,
    CLIPPING,
    HfImageFolder(),
    WebDataset(),
)
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _ALL}

__all__ = ["LAYOUTS", "PICKS", "Entry", "Layout", "Listing", "Options"]
