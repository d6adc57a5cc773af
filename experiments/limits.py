"""Ranges of configuration values, checked before a command loads torch, reads data or touches a folder.

Values whose range depends on an object (codebook sizes, image sizes, batches larger than the data) are checked by the
object. Recipes may hold keys that are not listed here; what is listed is checked wherever it stands.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig, OmegaConf

from .cli import unknown

PHASES = ("tokenizer", "siglip", "unified")
ACCELERATORS = ("auto", "cpu", "gpu")
PRECISIONS = ("auto", "32-true", "bf16-mixed")


@dataclass(frozen=True)
class Rule:
    """What a value must be; `words` finishes the sentence "... must be"."""

    words: str
    holds: Callable[[Any], bool]

    def or_(self, extra: str | None) -> "Rule":
        """The same rule with one more accepted value (None is written null, as in yaml)."""
        name = "null" if extra is None else extra
        return Rule(f"{self.words}, or {name}", lambda value: value == extra or self.holds(value))


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _integer(least: int) -> Rule:
    return Rule(f"an integer of at least {least}", lambda value: _is_int(value) and value >= least)


def _above(least: float) -> Rule:
    return Rule(f"a number above {least}", lambda value: _is_number(value) and least < value < float("inf"))


def _number(least: float, most: float = float("inf"), *, below: bool = False) -> Rule:
    if most == float("inf"):
        return Rule(f"a number of at least {least}", lambda value: _is_number(value) and least <= value < most)
    words = f"a number of at least {least} and {'below' if below else 'at most'} {most}"
    return Rule(
        words, lambda value: _is_number(value) and least <= value and (value < most if below else value <= most)
    )


FLAG = Rule("true or false", lambda value: isinstance(value, bool))
FRACTION = _number(0, 1)
RATE = _above(0)

# Patterns of dotted keys; `*` spans any part of a key. The first that fits decides.
RULES: tuple[tuple[str, Rule], ...] = (
    ("seed", _integer(0)),
    ("recipe.*.steps", _integer(1)),
    ("recipe.*.batch_size", _integer(1)),
    ("recipe.*.accumulate", _integer(1)),
    ("recipe.*.validate_every", _integer(1)),
    ("recipe.*.clip", RATE),
    ("recipe.*.ema_decay", _number(0, 1, below=True).or_(None)),
    ("recipe.*.*_weight", _number(0)),
    ("recipe.*.mixture.caption_dropout", FRACTION),
    ("recipe.*.mixture.[!_]*", _number(0)),
    ("recipe.*.optimizer.lr", RATE),
    ("recipe.*.optimizer.adamw_lr", RATE),
    ("recipe.*.optimizer.weight_decay", _number(0)),
    ("recipe.*.optimizer.momentum", _number(0, 1, below=True)),
    ("recipe.*.optimizer.*betas[[]?]", _number(0, 1, below=True)),
    ("recipe.*.schedule.warmup_steps", _integer(0)),
    ("recipe.*.schedule.decay_from", FRACTION),
    ("recipe.*.schedule.final", FRACTION),
    ("trainer.threads", _integer(1).or_(None)),
    ("trainer.num_workers", _integer(0)),
    ("trainer.log_every", _integer(1)),
    ("trainer.checkpoint_seconds", _number(0)),
    ("evaluation.num_images", _integer(1)),
    ("evaluation.generation.num_images", _integer(1)),
    ("evaluation.generation.seed", _integer(0)),
    ("evaluation.batch_size", _integer(1)),
    ("evaluation.pictures", _integer(1)),
    ("evaluation.distances", FLAG),
    ("workers", _integer(1).or_("auto")),
    ("num", _integer(1)),
    ("*cfg_scale", _number(0)),
    ("*temperature", _number(0)),
    ("*top_k", _integer(1).or_(None)),
    ("*top_p", Rule("a number above 0 and at most 1", lambda v: _is_number(v) and 0 < v <= 1).or_(None)),
)

CHOICES = {
    "phase": PHASES,
    "trainer.accelerator": ACCELERATORS,
    "trainer.precision": PRECISIONS,
}


def check_values(cfg: DictConfig) -> None:
    """Check every listed value of a configuration.

    Raises:
        ValueError: the first value out of its range: key, value, what it must be (for a name: the nearest valid ones).
    """
    for key, value in leaves(cfg):
        for pattern, rule in RULES:
            if fnmatchcase(key, pattern):
                if not rule.holds(value):
                    raise ValueError(f"{key}={_shown(value)} must be {rule.words}.")
                break
        if key in CHOICES and value not in CHOICES[key]:
            raise ValueError(f"{key}: {unknown(str(value), CHOICES[key], key.rsplit('.')[-1])}")


def leaves(node: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted key, value) of everything below `node`; missing values are left to whoever needs them."""
    if OmegaConf.is_dict(node):
        pairs = [
            (f"{prefix}.{name}" if prefix else str(name), node, name)
            for name in node
            if not OmegaConf.is_missing(node, name)
        ]
    elif OmegaConf.is_list(node):
        pairs = [(f"{prefix}[{i}]", node, i) for i in range(len(node))]
    else:
        return [(prefix, node)]
    return [leaf for key, parent, name in pairs for leaf in leaves(parent[name], key)]


def _shown(value: Any) -> str:
    return "null" if value is None else repr(value) if isinstance(value, str) else str(value)
