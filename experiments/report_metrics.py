"""What the report knows about a number from its name: label, unit, direction, how to print it, what it means.

A name is a protocol. Names the report has never seen keep a column of their own, so nothing recorded is hidden.
"""

from dataclasses import dataclass, replace
from typing import Literal

Better = Literal["higher", "lower"] | None


@dataclass(frozen=True)
class Quantity:
    """`decimals` None: chosen per column. `is_proportion`: a share of `n` independent cases (binomial interval)."""

    name: str
    group: str
    label: str
    unit: str = ""
    better: Better = None
    decimals: int | None = None
    is_proportion: bool = False
    meaning: str = ""


def _q(name: str, label: str, unit: str, better: Better, decimals: int | None, meaning: str) -> Quantity:
    return Quantity(
        name, name.split("/")[0], label, unit, better, decimals, unit == "share" and name not in COUNTED, meaning
    )


COUNTED = ("codebook/usage",)  # a share, but of codes, which are no independent cases

_KNOWN = [
    _q(
        "size/parameters",
        "parameters",
        "M",
        None,
        3,
        "Everything the model holds: LLM, head, adapter, image tokenizer.",
    ),
    _q("size/tokens_per_image", "tokens", "/image", None, 0, "Ids the LLM writes for one image."),
    _q("size/bits_per_image", "bits", "/image", None, 0, "Tokens times log2(codebook size)."),
    _q("size/codebook_size", "codebook", "codes", None, 0, "Entries of the codebook."),
    _q("rec/psnr", "PSNR", "dB", "higher", 2, "Peak signal-to-noise ratio of reconstructions, mean over test images."),
    _q("rec/ssim", "SSIM", "", "higher", 4, "Structural similarity of reconstructions, data range 1."),
    _q("rec/lpips", "LPIPS", "", "lower", 4, "Learned perceptual distance of reconstructions (standard weights)."),
    _q("rec/rfid", "rFID", "", "lower", 2, "Fréchet distance of reconstructions in standard Inception features."),
    _q("gen/gfid", "gFID", "", "lower", 2, "Fréchet distance of generated images in standard Inception features."),
    _q("rec/kid", "KID", "", "lower", 5, "Kernel distance of reconstructions in standard Inception features."),
    _q("gen/kid", "KID", "", "lower", 5, "Kernel distance of generated images in standard Inception features."),
    _q("codebook/usage", "codes used", "share", "higher", 3, "Share of codebook entries used on the test split."),
    _q("codebook/dead", "dead codes", "codes", None, 0, "Codebook entries never used on the test split."),
    _q("codebook/entropy_bits", "entropy", "bits", None, 2, "Entropy of the code frequencies on the test split."),
    _q("codebook/perplexity", "perplexity", "codes", None, 0, "2 to the entropy: codes in effective use."),
    _q("und/accuracy", "answers right", "share", "higher", 3, "Questions answered exactly, each asked alone."),
    _q("und/floor", "majority floor", "share", None, 3, "Always giving the most common answer of the question's kind."),
    _q(
        "und/caption_bits_per_byte",
        "caption bits",
        "/byte",
        "lower",
        3,
        "Bits per byte of the true caption, given the image.",
    ),
    _q("sem/retrieval", "retrieval", "share", "higher", 3, "Test images whose own caption scores highest."),
    _q(
        "sem/cosine",
        "teacher cosine",
        "",
        "higher",
        3,
        "Cosine between the features decoded from codes and the teacher's. Floor: the best constant at each place.",
    ),
    _q("cost/training_seconds", "training", "s", "lower", 0, "Wall seconds of every stage the design needs, summed."),
    _q("cost/cpu_seconds", "CPU time", "s", "lower", 0, "Process CPU seconds of every stage, summed."),
    _q("cost/peak_memory_bytes", "peak memory", "GB", "lower", 2, "Largest peak of memory over the design's stages."),
    _q("cost/cuda_peak_memory_bytes", "peak GPU memory", "GB", "lower", 2, "Largest peak of GPU memory."),
    _q("cost/images_per_second", "LLM training", "images/s", "higher", 0, "Images per second in training the LLM."),
    _q(
        "cost/tokenizer_images_per_second", "tokenizer training", "images/s", "higher", 0, "The same for the tokenizer."
    ),
]
QUANTITIES = {quantity.name: quantity for quantity in _KNOWN}

ATTRIBUTES = ("colour", "place", "size", "shape", "all")
SCALES = {
    "size/parameters": 1e-6,
    "cost/peak_memory_bytes": 1e-9,
    "cost/cuda_peak_memory_bytes": 1e-9,
}  # stored unit -> printed unit
SPACES = {"efflite0": "EfficientNet-Lite0 (not FID)"}


def quantity(name: str) -> Quantity:
    """What is known about `name`; kinds and attributes are read off the name, unknown names stay themselves."""
    if name in QUANTITIES:
        return QUANTITIES[name]
    base, _, kept = name.partition("/k=")
    if kept:
        known = quantity(base)
        words = f"{known.meaning} From the first {kept} tokens of each image."
        return replace(known, name=name, label=f"{known.label}, {kept} tokens", meaning=words)
    group, *rest = name.split("/")
    if len(rest) >= 2 and rest[0] == "oracle":
        label = "all right" if rest[-1] == "all" else " ".join(rest[1:]).removeprefix("kind ")
        what = (
            "generated images that show what the caption asks"
            if group == "gen"
            else "reconstructions that still show the scene"
        )
        return Quantity(
            name, group, label, "share", "higher", 3, True, f"Share of {what}, judged by the oracle: {label}."
        )
    if group == "und" and rest and rest[0] in ("accuracy", "floor"):
        better = "higher" if rest[0] == "accuracy" else None
        return Quantity(
            name, group, rest[-1], "share", better, 3, True, f"{rest[0].capitalize()} on questions about {rest[-1]}."
        )
    if rest and rest[0][:3] in ("kd_", "fd_"):
        return _distance(name, group, rest[0])
    if group == "size" and rest and rest[0] == "parameters":
        return Quantity(name, group, " ".join(rest[1:]), "M", None, 3, False, "Parameters of this part.")
    if group == "cost" and rest and rest[0] == "training_seconds":
        return Quantity(name, group, " ".join(rest[1:]), "s", None, 0, False, "Wall seconds of this stage.")
    return Quantity(name, group, name, meaning="Recorded by the run; the report knows no more about it.")


def _distance(name: str, group: str, short: str) -> Quantity:
    kind = "kernel distance" if short.startswith("kd_") else "Fréchet distance"
    space = SPACES.get(short[3:], short[3:])
    what = "test images and their reconstructions" if group == "rec" else "test images and generated images"
    meaning = f"{kind.capitalize()} between {what} in the feature space of {space}."
    return Quantity(name, group, short, "", "lower", None, False, meaning)


def is_distance(name: str) -> bool:
    """Distances between sets of images depend on the number of images: unlike n is an unlike protocol."""
    last = name.rsplit("/", 1)[-1]
    return last.startswith(("kd_", "fd_")) or last in ("rfid", "gfid", "kid")


def printed(name: str, value: float, decimals: int) -> str:
    """`value` in the printed unit, thousands apart by a narrow space, a true minus sign."""
    text = f"{value * scale(name):,.{decimals}f}"
    text = text.lstrip("-") if float(text.replace(",", "")) == 0 else text
    return text.replace(",", "\u202f").replace("-", "\u2212")


def scale(name: str) -> float:
    return 1e-6 if name.startswith("size/parameters") else SCALES.get(name, 1.0)


def column_decimals(name: str, values: list[float]) -> int:
    """Decimals that print a whole column alike: the known ones, else three significant digits of the smallest value."""
    known = quantity(name).decimals
    if known is not None:
        return known
    sizes = [abs(value) * scale(name) for value in values if value]
    if not sizes:
        return 0
    smallest, decimals = min(sizes), 0
    while smallest < 100 and decimals < 5:
        smallest, decimals = smallest * 10, decimals + 1
    return decimals
