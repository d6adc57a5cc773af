"""One-D-Piece in its official layout, which is that of TiTok: same fields, same key names, tail drop besides."""

from collections.abc import Mapping
from typing import Any

from . import official_titok
from .official_titok import TiTok, layout, loss_terms, unwrap

__all__ = ["LICENCE", "SOURCE", "from_official_config", "layout", "loss_terms", "unwrap"]

SOURCE = "github.com/turingmotors/One-D-Piece, hub turing-motors/One-D-Piece-{S,B,L}-256"
LICENCE = "Apache-2.0"


def from_official_config(config: Mapping[str, Any]) -> TiTok:
    """As `official_titok.from_official_config`, for configurations of One-D-Piece alone.

    Raises:
        ValueError: the configuration asks for full length.
    """
    if official_titok.fields(config)["strict_length_assertion"]:
        raise ValueError(
            "the configuration refuses short sequences, so it is one of TiTok; One-D-Piece has "
            "strict_length_assertion: false."
        )
    return official_titok.from_official_config(config)
