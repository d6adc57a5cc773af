"""The captions of scenes: one grammar, written from claims and read back into them."""

import re

from .scene_claims import RELATIONS, Claim, ObjectClaim

SIZES = ("small", "large")
TEXTURES = ("plain", "striped")
CELLS = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
NUMBERS = ("zero", "one", "two", "three", "four")


class SceneLanguage:
    """Writes and reads captions over given tables of names.

    Grammar: [a | number] [size] [texture] [colour] shape [at the place], several of them joined by "and" or one
    relation, then optionally [on a grey background].

    Args:
        shapes, colors, backgrounds: names, in the order of the indices in claims.
        one_object: every scene of this world holds a single object, so every caption describes the whole scene.
    """

    def __init__(
        self, shapes: tuple[str, ...], colors: tuple[str, ...], backgrounds: tuple[str, ...], *, one_object: bool
    ) -> None:
        self.shapes, self.colors, self.backgrounds = shapes, colors, backgrounds
        self.one_object = one_object
        self._plurals = tuple(plural(shape) for shape in shapes)
        nouns = {name: index for index, name in enumerate(shapes)} | {p: i for i, p in enumerate(self._plurals)}
        self._tables = {
            "size": {name: index for index, name in enumerate(SIZES)},
            "texture": {name: index for index, name in enumerate(TEXTURES)},
            "color": {name: index for index, name in enumerate(colors)},
            "shape": nouns,
            "cell": {name: index for index, name in enumerate(CELLS)},
        }
        one_of = {key: "|".join(sorted(table, key=len, reverse=True)) for key, table in self._tables.items()}
        self._phrase = re.compile(
            rf"(?P<number>an?|{'|'.join(NUMBERS[2:])}) (?:(?P<size>{one_of['size']}) )?"
            rf"(?:(?P<texture>{one_of['texture']}) )?(?:(?P<color>{one_of['color']}) )?(?P<shape>{one_of['shape']})"
            rf"(?: (?:at|in) the (?P<cell>{one_of['cell']}))?"
        )
        self._background = re.compile(rf"(?P<rest>.*) on an? (?P<name>{'|'.join(backgrounds)}) background")
        self._relation = re.compile(rf" ({'|'.join(RELATIONS)}) ")

    def write(self, claim: Claim) -> str:
        """The caption that says exactly what is claimed."""
        if claim.count is not None:
            words = self._describe(claim.objects[0], self._plurals)
            return f"{NUMBERS[claim.count]} {words}"
        phrases = [with_article(self._describe(claimed, self.shapes)) for claimed in claim.objects]
        joint = " and " if claim.relation is None else f" {RELATIONS[claim.relation]} "
        text = joint.join(phrases)
        if claim.background is not None:
            text += " on " + with_article(f"{self.backgrounds[claim.background]} background")
        return text

    def read(self, caption: str) -> Claim:
        """What a caption claims, the inverse of `write`; case, punctuation and the spelling of center are forgiven.

        Raises:
            ValueError: the caption is not in the grammar; names the words that no caption uses.
        """
        text = " ".join(re.sub(r"[^a-z\s]", " ", caption.lower()).split()).replace("centre", "center")
        background = self._background.fullmatch(text)
        rest = background["rest"] if background else text
        relation = self._relation.search(rest)
        phrases = re.split(self._relation, rest, maxsplit=1)[::2] if relation else rest.split(" and ")
        matches = [self._phrase.fullmatch(phrase) for phrase in phrases]
        found = [match for match in matches if match is not None]
        counted = [match for match in found if match["number"] in NUMBERS]
        alone = counted or self.one_object  # such a phrase says all there is to say
        if len(found) < len(phrases) or (alone and (len(phrases) > 1 or background)) or (counted and self.one_object):
            raise ValueError(self._complaint(caption, text))
        objects = tuple(ObjectClaim(**self._attributes(match)) for match in found)
        count = NUMBERS.index(counted[0]["number"]) if counted else None
        relation_index = RELATIONS.index(relation[1]) if relation else None
        background_index = self.backgrounds.index(background["name"]) if background else None
        kind, exact = self._kind(objects, relation_index, count, background_index)
        return Claim(kind, objects, relation_index, count, background_index, exact)

    def _kind(
        self, objects: tuple[ObjectClaim, ...], relation: int | None, count: int | None, background: int | None
    ) -> tuple[str, bool]:
        if self.one_object:
            return "whole", True
        if count is not None:
            return "count", False
        if background is not None:
            return "full", True
        if relation is not None:
            return "relation", False
        first = objects[0]
        if len(objects) > 1:
            return ("two" if all(claimed.color is None for claimed in objects) else "binding"), False
        if first.cell is not None:
            return "place", False
        return ("single" if first.color is None else "colour"), False

    def _describe(self, claimed: ObjectClaim, nouns: tuple[str, ...]) -> str:
        words = [] if claimed.size is None else [SIZES[claimed.size]]
        words += [] if claimed.texture is None else [TEXTURES[claimed.texture]]
        words += [] if claimed.color is None else [self.colors[claimed.color]]
        words.append(nouns[claimed.shape])
        words += [] if claimed.cell is None else ["at the", CELLS[claimed.cell]]
        return " ".join(words)

    def _attributes(self, match: re.Match[str]) -> dict[str, int]:
        return {key: table[match[key]] for key, table in self._tables.items() if match[key] is not None}

    def _complaint(self, caption: str, text: str) -> str:
        example = ObjectClaim(0, 0, 0, None, 0)
        known = set(" ".join([*self.shapes, *self._plurals, *self.colors, *self.backgrounds]).split())
        known |= set(" ".join([*SIZES, *TEXTURES, *CELLS, *NUMBERS[2:], *RELATIONS]).split())
        known |= set(["a", "an", "and", "at", "in", "on", "the", "background"])
        strange = [word for word in text.split() if word not in known]
        reason = (
            f"it does not know {', '.join(map(repr, strange))}" if strange else "the order of its words is not known"
        )
        return (
            f"caption {caption!r} cannot be checked against scenes: {reason}; "
            f"write for example {with_article(self._describe(example, self.shapes))!r}."
        )


def plural(noun: str) -> str:
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
