"""Miniatures of the field's data sets, by name; see `trees`."""

from tests.miniatures import face_trees as faces
from tests.miniatures import trees
from tests.miniatures.trees import Miniature

MINIATURES: dict[str, Miniature] = {
    "folder": Miniature("folder", trees._files(trees.FOLDER), trees.FOLDER),
    "csv": Miniature("csv", trees._csv, trees.CSV, tables=("labels.csv",)),
    "forensynths": Miniature("forensynths", trees._files(trees.FORENSYNTHS), trees.FORENSYNTHS),
    "ufd-diffusion": Miniature(
        "ufd-diffusion", trees._files(trees.UFD_DIFFUSION), trees.UFD_DIFFUSION
    ),
    "genimage": Miniature("genimage", trees._files(trees.GENIMAGE), trees.GENIMAGE),
    "df40": Miniature("df40", faces.write_df40_lists, faces.DF40_LISTS, n_absent=1),
    "df40-tests": Miniature("df40", faces.write_df40_tests, faces.DF40_TESTS),
    "df40-folders": Miniature("df40", faces.write_df40_folders, faces.DF40_FOLDERS),
    "deepfakebench": Miniature("deepfakebench", faces.write_bench, faces.BENCH),
    "synthbuster": Miniature("synthbuster", trees._synthbuster, trees.SYNTHBUSTER),
    "ldm-trainingset": Miniature("ldm-trainingset", trees._ldm, trees.LDM, n_absent=1),
    "lare-list": Miniature("lare-list", trees._lare, trees.LARE, tables=("lists",), n_absent=1),
    "sidbench": Miniature("sidbench", trees._files(trees.SIDBENCH), trees.SIDBENCH),
    "clipping": Miniature("clipping", trees._clipping, trees.CLIPPING),
    "hf-imagefolder": Miniature("hf-imagefolder", trees._hub, trees.HUB, n_absent=1),
    "webdataset": Miniature("webdataset", trees._webdataset, trees.WEBDATASET),
}
"""Every layout has one; the roots must be called `images` for the sources to be as expected."""

__all__ = ["MINIATURES", "Miniature"]
