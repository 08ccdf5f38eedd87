"""Perturbations by name: a view is the same picture, perturbed, the same way every time.

Chance in a view is a function of image id and view name, so any worker makes the same pixels, and
features of one row always come from one picture. Sources: UniversalFakeDetect's and RINE's released
code and papers, as described beside each rule.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import correlate1d, gaussian_filter

from clare_cache.errors import ImageError
from clare_cache.images.encode import recompress, recompress_swapped
from clare_cache.images.opencv import opencv_bicubic
from clare_cache.seeds import generator_for
from clare_cache.types import CLEAN, ImageId, Pixels

RULE = 1
"""Raised when a view's pixels change, so that features made before no longer apply."""

Perturb = Callable[[Pixels, np.random.Generator], Pixels]

RINE_PX = 256
RINE_SHARE = 0.5
CROP_PX = 224
MATCHED_PX = 256
CORNERS = 5
SHARED_PX = (1080, 720, 480)


@dataclass(frozen=True)
class View:
    """A named perturbation: `view(pixels, image_id)` → uint8 pixels, perhaps of another size."""

    name: str
    perturb: Perturb

    def __call__(self, pixels: Pixels, image_id: ImageId) -> Pixels:
        return self.perturb(pixels, generator_for(0, image_id, f"view/{self.name}"))

    def declared(self) -> dict[str, Any]:
        """What the view adds to the declared inputs of features; nothing for the clean picture."""
        return {} if self.name == CLEAN else {"view": {"name": self.name, "rule": RULE}}


def find_view(name: str) -> View:
    """The view of that name. Raises ImageError (stage `view`) for a number out of range, and
    listing the spellings for any other name."""
    for (pattern, make), (spelling, does) in _SPELLINGS:
        if match := re.fullmatch(pattern, name):
            perturb = make(*match.groups())
            if perturb is None:
                raise ImageError("view", f"{name}: expected {spelling}, {does}")
            return View(name, perturb)
    spellings = ", ".join(view_spellings())
    raise ImageError("view", f"{name}: expected one of {spellings}")


def view_spellings() -> dict[str, str]:
    """Every kind of view by its spelling, with what it does."""
    return dict(says for _, says in _SPELLINGS)


def _clean() -> Perturb:
    return lambda pixels, rng: pixels


def _jpeg(quality: str) -> Perturb | None:
    if not 1 <= int(quality) <= 100:
        return None
    return lambda pixels, rng: recompress(pixels, int(quality))


def _blur(sigma: str) -> Perturb | None:
    return (lambda pixels, rng: blur(pixels, float(sigma))) if float(sigma) > 0 else None


def _resize(factor: str) -> Perturb | None:
    return (lambda pixels, rng: rescale(pixels, float(factor))) if float(factor) > 0 else None


def _crop(share: str) -> Perturb | None:
    return (lambda pixels, rng: centre(pixels, float(share))) if 0 < float(share) <= 1 else None


def _noise(deviation: str) -> Perturb:
    return lambda pixels, rng: add_noise(pixels, float(deviation), rng)


def _flip() -> Perturb:
    return lambda pixels, rng: np.ascontiguousarray(pixels[:, ::-1])


def _share(times: str) -> Perturb:
    return lambda pixels, rng: share(pixels, int(times))


def _augment(number: str) -> Perturb:
    return lambda pixels, rng: augment(pixels, rng)


def _tencrop(number: str) -> Perturb:
    return lambda pixels, rng: corner_crop(pixels, int(number))


def _matched(quality: str) -> Perturb | None:
    if not 1 <= int(quality) <= 100:
        return None
    return lambda pixels, rng: match(pixels, int(quality))


def _rine(source: str, kind: str) -> Perturb:
    return lambda pixels, rng: rine(pixels, kind, rng, as_code=source == "code")


def match(pixels: Pixels, quality: int) -> Pixels:
    """Every picture alike from the outside: MATCHED_PX square from the middle, JPEG of `quality`.

    The shorter side is resized to MATCHED_PX first (bicubic, antialiased), so that resolution and
    the grid of an earlier JPEG are gone as well; what an earlier compression took from the picture
    is not brought back.
    """
    height, width = pixels.shape[:2]
    factor = MATCHED_PX / min(height, width)
    height, width = (max(round(side * factor), MATCHED_PX) for side in (height, width))
    resized = _resized(pixels, width=width, height=height, how=Image.Resampling.BICUBIC)
    top, left = (height - MATCHED_PX) // 2, (width - MATCHED_PX) // 2
    middle = resized[top : top + MATCHED_PX, left : left + MATCHED_PX]
    return recompress(np.ascontiguousarray(middle), quality)


def blur(pixels: Pixels, sigma: float) -> Pixels:
    """Gaussian blur of `sigma` pixels per channel, reflected at the border (UFD)."""
    return np.stack([gaussian_filter(pixels[..., c], sigma) for c in range(3)], axis=-1)


def rescale(pixels: Pixels, factor: float) -> Pixels:
    """Both sides times `factor`, at least 1 px, bicubic with antialias."""
    height, width = (max(round(side * factor), 1) for side in pixels.shape[:2])
    return _resized(pixels, width=width, height=height, how=Image.Resampling.BICUBIC)


def centre(pixels: Pixels, share: float) -> Pixels:
    """The central `share` of both sides, at least 1 px."""
    height, width = pixels.shape[:2]
    rows, columns = max(round(height * share), 1), max(round(width * share), 1)
    top, left = (height - rows) // 2, (width - columns) // 2
    return np.ascontiguousarray(pixels[top : top + rows, left : left + columns])


def add_noise(pixels: Pixels, deviation: float, rng: np.random.Generator) -> Pixels:
    """Gaussian noise of this many grey levels, clipped to 0..255, truncated (RINE's rule)."""
    noisy = pixels + deviation * rng.standard_normal(pixels.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def share(pixels: Pixels, times: int) -> Pixels:
    """Shared `times` times: longer side to at most 1080 px, then 720 px …, JPEG 75 each time.

    A stand-in for what platforms do; no platform's exact rule.
    """
    for longest in SHARED_PX[:times]:
        height, width = pixels.shape[:2]
        if max(height, width) > longest:
            pixels = rescale(pixels, longest / max(height, width))
        pixels = recompress(pixels, 75)
    return pixels


def augment(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """One draw of UniversalFakeDetect's training augmentation: blur, JPEG, crop, mirror.

    With probability 0.5 each: blur of sigma U[0, 3]; JPEG of a whole quality 30..100. Then a
    224 px crop at a random place (as much as there is), mirrored with probability 0.5.
    """
    if rng.random() < 0.5:
        pixels = blur(pixels, rng.uniform(0, 3))
    if rng.random() < 0.5:
        pixels = recompress(pixels, int(rng.integers(30, 101)))
    spare = [max(side - CROP_PX, 0) for side in pixels.shape[:2]]
    top, left = (int(rng.integers(s + 1)) for s in spare)
    crop = pixels[top : top + CROP_PX, left : left + CROP_PX]
    return np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop)


def corner_crop(pixels: Pixels, number: int) -> Pixels:
    """224 px crop: 0 to 3 the corners (top left, top right, bottom left, bottom right), 4 the
    centre, 5 to 9 their mirror images. Raises ImageError for pictures that are smaller.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < CROP_PX:
        raise ImageError("view", f"{width}x{height} px: ten crops need {CROP_PX} px on each side")
    bottom, right = height - CROP_PX, width - CROP_PX
    middle = round(bottom / 2), round(right / 2)
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), middle]
    top, left = places[number % CORNERS]
    crop = pixels[top : top + CROP_PX, left : left + CROP_PX]
    return np.ascontiguousarray(crop[:, ::-1] if number >= CORNERS else crop)


def rine(pixels: Pixels, kind: str, rng: np.random.Generator, *, as_code: bool) -> Pixels:
    """RINE's robustness set (its Table 5): half of the images, drawn by id, are perturbed.

    Perturbed images are also squashed to 256 px (bilinear, antialiased), the others are not.
    `as_code` keeps what the released code does: blur of sigma 4 whatever the kernel, JPEG quality
    95 whatever is drawn with chroma made of swapped channels, and crops of non-square pictures
    resized to their transposed size. Otherwise as the paper says: sigma by the kernel's size,
    qualities 10 to 74, crops back to their size.
    """
    if rng.random() >= RINE_SHARE:
        return pixels
    kinds = ("blur", "crop", "jpeg", "noise") if kind == "combined" else (kind,)
    for step in kinds:
        pixels = _RINE_STEPS[step](pixels, rng, as_code)
    return _resized(pixels, width=RINE_PX, height=RINE_PX, how=Image.Resampling.BILINEAR)


def _rine_blur(pixels: Pixels, rng: np.random.Generator, as_code: bool) -> Pixels:
    size = int(rng.choice([3, 5, 7, 9]))
    # OpenCV's own rule for a sigma that is not given.
    sigma = 4.0 if as_code else 0.3 * ((size - 1) * 0.5 - 1) + 0.8
    offsets = np.arange(size) - size // 2
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    blurred = pixels.astype(np.float64)
    for axis in (0, 1):
        blurred = correlate1d(blurred, kernel / kernel.sum(), axis=axis, mode="mirror")
    return _to_bytes(blurred)


def _rine_crop(pixels: Pixels, rng: np.random.Generator, as_code: bool) -> Pixels:
    height, width = pixels.shape[:2]
    share = rng.uniform(0.05, 0.2)
    rows, columns = int(height * share / 2), int(width * share / 2)
    if not rows or not columns:
        raise ImageError("view", f"{width}x{height} px: too small to crop {share:.0%}")
    inner = pixels[rows : height - rows, columns : width - columns]
    # OpenCV wants (width, height); the code hands it (height, width).
    target = (height, width) if as_code else (width, height)
    return opencv_bicubic(inner, width=target[0], height=target[1])


def _rine_jpeg(pixels: Pixels, rng: np.random.Generator, as_code: bool) -> Pixels:
    quality = int(rng.integers(10, 75))
    if not as_code:
        return recompress(pixels, quality)
    return recompress_swapped(pixels, 95)


def _rine_noise(pixels: Pixels, rng: np.random.Generator, as_code: bool) -> Pixels:
    return add_noise(pixels, rng.uniform(5, 20), rng)


_RINE_STEPS: Mapping[str, Callable[[Pixels, np.random.Generator, bool], Pixels]] = {
    "blur": _rine_blur,
    "crop": _rine_crop,
    "jpeg": _rine_jpeg,
    "noise": _rine_noise,
}


def _resized(pixels: Pixels, *, width: int, height: int, how: Image.Resampling) -> Pixels:
    return np.array(Image.fromarray(pixels).resize((width, height), how))


def _to_bytes(values: NDArray[np.float64]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


_NUMBER = r"(\d+(?:\.\d+)?)"
_SPELLINGS: list[tuple[tuple[str, Callable[..., Perturb | None]], tuple[str, str]]] = [
    ((CLEAN, _clean), ("clean", "the picture as it is")),
    ((r"jpeg-q(\d+)", _jpeg), ("jpeg-qQ", "JPEG of quality Q, 1 to 100")),
    (
        (r"matched-jpeg-q(\d+)", _matched),
        ("matched-jpeg-qQ", "256 px square, JPEG of quality Q, 1 to 100"),
    ),
    ((f"blur-s{_NUMBER}", _blur), ("blur-sS", "Gaussian blur of S pixels, above 0")),
    ((f"resize-x{_NUMBER}", _resize), ("resize-xF", "both sides times F, above 0")),
    (
        (f"crop-f{_NUMBER}", _crop),
        ("crop-fF", "the central share F of both sides, above 0, at most 1"),
    ),
    ((f"noise-s{_NUMBER}", _noise), ("noise-sS", "Gaussian noise of S grey levels")),
    (("flip", _flip), ("flip", "mirrored")),
    ((r"share-([1-3])", _share), ("share-N", "resized and compressed N times, 1 to 3")),
    ((r"aug-(\d{3})", _augment), ("aug-NNN", "one draw of UFD's training augmentation")),
    ((r"tencrop-(\d)", _tencrop), ("tencrop-N", "224 px crop N of ten")),
    (
        (r"rine-(code|paper)-(blur|crop|jpeg|noise|combined)", _rine),
        ("rine-code-K, rine-paper-K", "RINE's robustness set; K blur, crop, jpeg, noise, combined"),
    ),
]
