"""A made-up study on disk: run folders as training writes them, with numbers that look like the real ones."""

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

COLOURS = {
    "red": (214, 60, 52),
    "blue": (52, 98, 214),
    "green": (46, 160, 84),
    "yellow": (232, 190, 48),
    "purple": (140, 70, 190),
}
ATTRIBUTES = ("colour", "place", "size", "shape", "all")
KINDS = ("colour", "place", "shape", "size", "existence")
SPACE = {"n_reference": 512, "protocol": "bicubic 224, pooled features", "weights": "a1b2c3d4e5f6"}
GROUND = {"single_vq": ("Single VQ", 33.1, 0.52, 0.979), "decoupled": ("Decoupled SigLIP + VQ", 33.1, 0.63, 0.997)}


def scene(colour: str, shape: str, size: int, x: int, y: int, side: int = 64) -> np.ndarray:
    """A (3, side, side) uint8 picture of one shape on grey."""
    rows, columns = np.mgrid[:side, :side]
    dx, dy = columns - x, rows - y
    masks = {
        "circle": dx**2 + dy**2 <= size**2,
        "square": np.maximum(abs(dx), abs(dy)) <= size * 0.9,
        "triangle": (dy <= size * 0.8) & (dy >= -size + 2 * abs(dx)),
    }
    image = np.full((side, side, 3), 222, np.uint8)
    image[masks[shape]] = COLOURS[colour]
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def damaged(image: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """A blurred, noisy copy: what a tokenizer might return."""
    blurred = image.astype(np.float32)
    blurred = (blurred + np.roll(blurred, 1, 1) + np.roll(blurred, 1, 2) + np.roll(blurred, -1, 2)) / 4
    blurred += np.random.default_rng(seed).normal(0, noise, image.shape)
    return np.clip(blurred, 0, 255).astype(np.uint8)


def make_study(folder: Path, designs: Sequence[str] = tuple(GROUND), seeds: Sequence[int] = (0, 1, 2)) -> Path:
    """A finished study folder; designs beyond the two known ones are made up."""
    entries: dict[str, Any] = {}
    for position, name in enumerate(designs):
        title, psnr, right, answers = GROUND.get(
            name, (name, 31.0 + position / 3, 0.4 + position / 40, 0.9 + position / 120)
        )
        listed: dict[str, Any] = {}
        for seed in seeds:
            shift = random.Random(f"{name}{seed}").gauss(0, 1)
            tokenizer = "vq" if name in GROUND else name
            vq = write_tokenizer(
                folder / "stages" / f"tokenizer-{tokenizer}{seed}", seed, psnr + 0.15 * random.Random(seed).gauss(0, 1)
            )
            stages = {"vq": f"stages/{vq.name}"}
            source = {"fingerprint": fingerprint(vq), "folder": str(vq)}
            inputs = {"tokenizer": source}
            if name == "decoupled":
                siglip = write_siglip(folder / "stages" / f"siglip-{seed}", seed, {"warm_start": source})
                stages["siglip"] = f"stages/{siglip.name}"
                inputs = {
                    "generation": source,
                    "understanding": {"fingerprint": fingerprint(siglip), "folder": str(siglip)},
                }
            unified = folder / "stages" / f"unified-{name}{seed}"
            write_unified(unified, seed, right + 0.02 * shift, min(answers + 0.003 * shift, 1.0), inputs)
            stages["unified"] = f"stages/{unified.name}"
            listed[str(seed)] = {"stages": stages}
        entries[name] = {"title": title, "seeds": listed}
    checks = {key: {"equal": True, "digest": "0" * 64} for key in ("data_order", "llm_init", "optimizer_steps")}
    record = {
        "schema": 1,
        "name": "nano",
        "command": "tessella ablate 'seeds=[0,1,2]'",
        "created": "2025-06-01T12:00:00+00:00",
        "git": {"commit": "0123456789abcdef", "dirty": False},
        "versions": {"torch": "2.15.0"},
        "host": {"cpu": "made up"},
        "designs": entries,
        "checks": checks,
        "wall_seconds": 431.7,
    }
    write(folder / "study.json", record)
    return folder


def fingerprint(folder: Path) -> str:
    return json.loads((folder / "run.json").read_text())["fingerprint"]


def sha256(words: str) -> str:
    return hashlib.sha256(words.encode()).hexdigest()


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def write_run(
    folder: Path, phase: str, seed: int, metrics: dict[str, Any], absent: dict[str, str] | None = None, **fields: Any
) -> Path:
    """run.json, metrics.json and config.yaml of one run folder."""
    rng = random.Random(f"{folder.name}")
    run = {
        "schema": 1,
        "phase": phase,
        "status": "finished",
        "seed": seed,
        "fingerprint": f"{rng.getrandbits(256):064x}",
        "command": f"tessella train phase={phase} seed={seed}",
        "git": {"commit": "0123456789abcdef", "dirty": False},
        "versions": {"tessella": "0.1.0", "python": "3.11.7", "torch": "2.15.0", "lightning": "2.6.6"},
        "host": {"cpu": "a made-up processor", "cores": 2, "system": "Linux"},
        "threads": 1,
        "steps": 2800,
        "batch_size": 16,
        "training_seconds": 80 + 4 * rng.random(),
        "cpu_seconds": 79 + 4 * rng.random(),
        "peak_memory_bytes": 900_000_000 + rng.randrange(10**8),
        "images_per_second": 640 + 20 * rng.random(),
        "data": {
            "name": "scenes/simple",
            "fingerprint": {"train": "d" * 64, "test": "e" * 64},
            "image_size": 64,
            "preparation": {"resize": "none", "flip": False},
            "train_size": 8000,
            "test_size": 512,
            "skipped": 0,
        },
        "data_order": None,
        "llm_init": None,
        "inputs": {},
        **fields,
    }
    write(folder / "run.json", run)
    write(folder / "metrics.json", {"schema": 1, "metrics": metrics, "absent": absent or {}})
    write(
        folder / "config.yaml", f"phase: {phase}\nseed: {seed}\nrecipe:\n  steps: 2800\n  lr: 0.003\n  note: <a & b>\n"
    )
    return folder


def write_curves(folder: Path, columns: dict[str, tuple[float, float]], steps: int = 2800) -> None:
    """curves.csv: name -> (start, end), decaying; val columns only every 400 steps."""
    rng = random.Random(folder.name)
    lines = ["step," + ",".join(columns)]
    for step in range(0, steps + 1, 20):
        cells = []
        for name, (start, end) in columns.items():
            value = (
                end + (start - end) * 2.718 ** (-step / 500) * (1 + 0.05 * rng.random()) + 0.004 * end * rng.random()
            )
            value = max(value, 0.0)
            cells.append("" if name.startswith("val/") and step % 400 else f"{value:.6g}")
        lines.append(f"{step}," + ",".join(cells))
    write(folder / "curves.csv", "\n".join(lines) + "\n")


def save_pictures(folder: Path, tensors: dict[str, np.ndarray], notes: dict[str, Any]) -> None:
    from safetensors.numpy import save_file

    save_file(tensors, folder / "pictures.safetensors")
    write(folder / "pictures.json", notes)


def scenes(count: int, salt: str) -> tuple[list[tuple[str, str, str]], np.ndarray]:
    rng = random.Random(salt)
    chosen, images = [], []
    for _ in range(count):
        colour, shape = rng.choice(list(COLOURS)), rng.choice(["circle", "square", "triangle"])
        across, down = rng.randrange(3), rng.randrange(3)
        place = ("top", "middle", "bottom")[down] + " " + ("left", "center", "right")[across]
        chosen.append((colour, shape, place))
        images.append(scene(colour, shape, 9, 12 + 20 * across, 12 + 20 * down))
    return chosen, np.stack(images)


def write_tokenizer(folder: Path, seed: int, psnr: float) -> Path:
    if (folder / "run.json").is_file():
        return folder
    oracle = {"colour": 1.0, "place": 0.998, "size": 1.0, "shape": 0.857, "all": 0.821}
    metrics: dict[str, Any] = {f"rec/oracle/{key}": {"value": value, "n": 512} for key, value in oracle.items()}
    metrics |= {
        "rec/psnr": {"value": psnr, "n": 512},
        "rec/ssim": {"value": 0.9612 + psnr / 5000, "n": 512},
        "rec/kd_efflite0": {"value": 0.0132, "n": 512, **SPACE},
        "rec/fd_efflite0": {"value": 11.84, "n": 512, **SPACE},
        "codebook/usage": {"value": 508 / 512, "n": 32768},
        "codebook/entropy_bits": {"value": 7.24, "n": 32768},
        "codebook/perplexity": {"value": 151.2, "n": 32768},
        "codebook/dead": {"value": 4.0, "n": 32768},
    }
    absent = {
        "rec/rfid": "pt_inception-2015-12-05-6726825d.pth is not in ~/.cache/torch/hub/checkpoints",
        "rec/lpips": "alexnet-owt-7be5be79.pth is not in ~/.cache/torch/hub/checkpoints",
    }
    sizes = {
        "tokens_per_image": 64,
        "bits_per_image": 576.0,
        "codebook_size": 512,
        "parameters": {"encoder": 381_216, "decoder": 402_339},
    }
    write_run(folder, "tokenizer", seed, metrics, absent, **sizes)
    write_curves(
        folder, {"train/loss": (1.2, 0.02), "train/loss/commitment": (0.3, 0.02), "val/rec/psnr": (14.0, psnr)}
    )
    _, originals = scenes(16, "originals")
    restored = np.stack([damaged(image, 40 - psnr, k + seed) for k, image in enumerate(originals)])
    histogram = sorted((int(9000 / (k + 3)) for k in range(508)), key=lambda c: c * 7919 % 101) + [0] * 4
    save_pictures(folder, {"originals": originals, "reconstructions": restored}, {"codes_histogram": histogram})
    return folder


def write_siglip(folder: Path, seed: int, inputs: dict[str, Any]) -> Path:
    write_run(
        folder,
        "siglip",
        seed,
        {"sem/retrieval": {"value": 0.979, "n": 512, "floor": 1 / 324}},
        inputs=inputs,
        training_seconds=40.2,
        parameters={"vision": 378_016, "text": 280_448},
        steps=750,
        batch_size=64,
    )
    write_curves(folder, {"train/loss": (5.1, 0.4), "val/sem/retrieval": (0.01, 0.979)}, steps=740)
    return folder


def write_unified(folder: Path, seed: int, right: float, answers: float, inputs: dict[str, Any]) -> Path:
    oracle = {"colour": 0.95, "place": 0.94, "size": 0.97, "shape": right + 0.08, "all": right}
    chance = {"colour": 0.2, "place": 0.111, "size": 0.5, "shape": 0.333, "all": 0.004}
    metrics: dict[str, Any] = {f"gen/oracle/{k}": {"value": v, "n": 82, "floor": chance[k]} for k, v in oracle.items()}
    metrics |= {
        "gen/oracle/kind/full": {"value": right, "n": 41, "floor": 0.0},
        "gen/oracle/kind/colour": {"value": 0.93, "n": 41, "floor": 0.037},
        "gen/kd_efflite0": {"value": 0.041, "n": 82, **SPACE},
        "gen/fd_efflite0": {"value": 31.2, "n": 82, **SPACE},
        "und/accuracy": {"value": answers, "n": 2560},
        "und/floor": {"value": 0.358, "n": 2560},
    }
    for position, kind in enumerate(KINDS):
        right_here = min(answers + 0.01 * (2 - position), 1.0)
        metrics[f"und/accuracy/{kind}"] = {
            "value": right_here,
            "n": 512,
            "interval": [right_here - 0.02, min(right_here + 0.01, 1)],
        }
        metrics[f"und/floor/{kind}"] = {"value": (0.21, 0.13, 0.34, 0.5, 0.5)[position], "n": 512}
    write_run(
        folder,
        "unified",
        seed,
        metrics,
        {"gen/gfid": "the Inception weights are not there"},
        inputs=inputs,
        data_order=sha256(f"order {seed}"),
        llm_init=sha256(f"llm {seed}"),
        tokens_per_image=64,
        bits_per_image=576.0,
        steps=1400,
        batch_size=24,
        training_seconds=98.0 + seed,
        parameters={"llm": 826_112, "head": 132_096, "adapter": 33_152, "tokenizer": 783_555 * len(inputs)},
        images_per_second=340.0,
    )
    write_curves(
        folder,
        {
            "train/loss": (6.2, 0.4),
            "train/loss/text": (4.0, 0.1),
            "train/loss/image": (6.2, 0.5),
            "val/und/accuracy": (0.2, answers),
            "val/gen/oracle/all": (0.01, right),
        },
        steps=1400,
    )
    rng = random.Random(folder.name)
    chosen, images = scenes(12, "prompts")
    prompts = [f"a small {colour} {shape} at the {place}" for colour, shape, place in chosen]
    verdicts = [{key: rng.random() < oracle[key] for key in ATTRIBUTES[:4]} for _ in prompts]
    samples = np.stack([damaged(image, 6, k + seed) for k, image in enumerate(images)])
    asked, questioned = scenes(6, "questions")
    questions = []
    for position, (colour, shape, place) in enumerate(asked):
        for kind, words, answer in (
            ("colour", "what colour is the shape?", colour),
            ("shape", "which shape is it?", shape),
            ("place", "where is it, across?", place.split()[1]),
            ("place", "where is it, up or down?", place.split()[0]),
        ):
            guess = answer if rng.random() < answers - 0.08 else rng.choice(["red", "circle", "left"])
            questions.append({"image": position, "kind": kind, "text": words, "answer": answer, "predicted": guess})
    notes = {"prompts": prompts, "sample_verdicts": [*verdicts[:-1], None], "questions": questions}
    save_pictures(folder, {"samples": samples, "questioned": questioned}, notes)
    return folder
