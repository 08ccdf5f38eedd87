"""Generator → family, for the generators of the literature's data sets.

The words are SIDBench's, for whole pictures, and DF40's, for faces: gan, diffusion, autoregressive,
perceptual-loss, low-level-vision, deepfake (face swap or reenactment), face-editing.
"""

import re

from clare_cache.types import REAL

_FAMILIES = {
    "gan": "progan stylegan stylegan2 stylegan3 styleganxl biggan cyclegan stargan starganv2 "
    "gaugan eg3d taming whichfaceisreal whichisreal vqgan",
    "diffusion": "adm guided glide glide50 glide10027 glide5027 glide10010 ldm ldm100 ldm200 "
    "ldm200cfg dalle2 dalle3 sd21 sd13 sd14 sd15 sdv4 sdv5 sdxl stablediffusion13 "
    "stablediffusion14 stablediffusion15 stablediffusion2 stablediffusion21 stablediffusionxl "
    "stablediffusionv14 stablediffusionv15 sd512x512 firefly midjourney midjourney6 midjourneyv5 "
    "wukong vqdm dit sit ddim ddpm rddm pixart pixartalpha",
    "autoregressive": "dalle dallemini",
    "perceptual-loss": "crn imle",
    "low-level-vision": "seeingdark sitd san",
    "deepfake": "deepfake deepfakes face2face faceswap faceshifter neuraltextures "
    "deepfakedetection fsgan simswap inswap inswapper blendface uniface unifaceori mobileswap e4s "
    "facedancer deepfacelab fomm facevid2vid fsvid2vid wav2lip mraa oneshotfree oneshot pirender "
    "tpsm lia dagan sadtalker mcnet hyperreenact heygen celebsynthesis "
    "celebdfv1 celebdfv2 dfdc dfdcp dfd uadfv df",
    "face-editing": "collabdiff e4e styleclip",
}
_BY_GENERATOR = {name: family for family, names in _FAMILIES.items() for name in names.split()}
# In DF40, StarGAN and its successor edit a given face; in ForenSynths they are counted as GANs.


def family_of(generator: str | None) -> str | None:
    """The family, or None for a generator that is not listed: the manifest leaves it empty."""
    if generator is None:
        return None
    if generator == "real":
        return "real"
    return _BY_GENERATOR.get(re.sub(r"[^a-z0-9]", "", generator.lower()))


def generator_for(label: int, maker: str) -> str:
    """The generator column: `real` for reals, else the maker."""
    return "real" if label == REAL else maker
