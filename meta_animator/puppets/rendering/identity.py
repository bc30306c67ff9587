"""Who a puppet is: every parameter of its appearance, drawn from one seed."""

import dataclasses

import numpy as np

from meta_animator.puppets.rendering.streams import stream

Colour = tuple[float, float, float]

CLOTH_COLOURS: dict[str, Colour] = {
    "red": (0.80, 0.13, 0.14), "orange": (0.93, 0.48, 0.10), "yellow": (0.93, 0.80, 0.18), "green": (0.16, 0.55, 0.24),
    "turquoise": (0.13, 0.66, 0.66), "blue": (0.14, 0.30, 0.75), "purple": (0.45, 0.20, 0.62),
    "pink": (0.93, 0.52, 0.68), "brown": (0.44, 0.28, 0.17), "white": (0.93, 0.93, 0.91), "grey": (0.52, 0.53, 0.55),
    "black": (0.11, 0.11, 0.13),
}  # fmt: skip
HAIR_COLOURS: dict[str, Colour] = {
    "black": (0.09, 0.08, 0.09), "brown": (0.33, 0.20, 0.12), "auburn": (0.50, 0.19, 0.09),
    "ginger": (0.76, 0.38, 0.12), "blond": (0.87, 0.71, 0.38), "grey": (0.62, 0.62, 0.63), "blue": (0.20, 0.35, 0.75),
}  # fmt: skip
SKIN_TONES: dict[str, Colour] = {
    "pale": (0.96, 0.81, 0.72), "light": (0.92, 0.72, 0.58), "tan": (0.80, 0.58, 0.41), "brown": (0.60, 0.40, 0.27),
    "dark": (0.40, 0.26, 0.18),
}  # fmt: skip
EYE_COLOURS: dict[str, Colour] = {
    "brown": (0.28, 0.16, 0.08), "blue": (0.18, 0.40, 0.72), "green": (0.20, 0.50, 0.28), "black": (0.06, 0.06, 0.07),
}  # fmt: skip
HAIR_STYLES = ("short", "bob", "long", "ponytail", "bun", "curly", "mohawk", "bald")
PATTERNS = ("plain", "striped", "pinstriped", "checked", "dotted", "two-tone", "emblem")
SLEEVES = ("sleeveless", "short-sleeved", "long-sleeved")
BOTTOMS = ("trousers", "shorts", "skirt", "dress")
BEARDS = ("none", "stubble", "moustache", "beard")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Garment:
    """A cloth: base colour and pattern. Colours are RGB in [0, 1], `scale` is the pattern's period in metres."""

    name: str
    colour: Colour
    accent: Colour
    pattern: str
    scale: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Face:
    """The face in head units: 1 is half the head's width (x) or half its height (y); angles in radians."""

    eye_name: str
    eye_colour: Colour
    eye_size: float
    eye_spacing: float
    eye_height: float
    eye_slant: float
    brow_thickness: float
    brow_angle: float
    brow_height: float
    nose_size: float
    nose_height: float
    mouth_width: float
    mouth_height: float
    lip_thickness: float
    lip_colour: Colour
    smile: float
    jaw_width: float
    head_width: float
    blush: float
    beard: str
    glasses: str
    glasses_colour: Colour


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """All appearance parameters of one puppet. `height` is in metres, the ratios are fractions of it."""

    seed: int
    figure: str
    height: float
    build: float
    head_ratio: float
    leg_ratio: float
    shoulder_ratio: float
    hip_ratio: float
    skin_name: str
    skin: Colour
    hair_style: str
    hair_name: str
    hair: Colour
    fringe: float
    parting: float
    top: Garment
    sleeves: str
    neckline: float
    bottom_kind: str
    bottom: Garment
    bottom_length: float
    shoe_name: str
    shoe: Colour
    sock: Colour
    face: Face

    def describe(self) -> str:
        """The attributes in a fixed plain vocabulary, e.g. "a tall slim man-like person with ... and black shoes"."""
        size = "tall " if self.height > 1.74 else "short " if self.height < 1.60 else ""
        build = "slim " if self.build < 0.93 else "sturdy " if self.build > 1.09 else ""
        hair = "a bald head" if self.hair_style == "bald" else f"{_hair_words(self.hair_style, self.hair_name)}"
        items = [f"{self.skin_name} skin", hair]
        if self.face.beard != "none":
            items.append(self.face.beard if self.face.beard == "stubble" else f"a {self.face.beard}")
        if self.face.glasses != "none":
            items.append(f"{self.face.glasses} glasses")
        sleeves, cloth = self.sleeves, "dress" if self.bottom_kind == "dress" else "top"
        items.append(_article(f"{_cloth_words(self.top)} {sleeves} {cloth}"))
        if self.bottom_kind == "skirt":
            items.append(_article(f"{_cloth_words(self.bottom)} skirt"))
        elif self.bottom_kind != "dress":
            items.append(f"{_cloth_words(self.bottom)} {self.bottom_kind}")
        return f"a {size}{build}{self.figure} person with {', '.join(items)} and {self.shoe_name} shoes"


def make_identity(seed: int) -> Identity:
    """Draw an identity; equal seeds give equal identities, different seeds look different (continuous parameters)."""
    rng = stream(seed, "identity")
    woman = bool(rng.random() < 0.5)
    skin_name, skin = _named(rng, SKIN_TONES, 0.03)
    hair_name, hair = _named(rng, HAIR_COLOURS, 0.03, (0.24, 0.24, 0.13, 0.12, 0.17, 0.07, 0.03))
    odds = (0.10, 0.20, 0.26, 0.20, 0.12, 0.12, 0.0, 0.0) if woman else (0.48, 0.02, 0.08, 0.04, 0.06, 0.14, 0.06, 0.12)
    sleeves = str(rng.choice(SLEEVES, p=(0.2, 0.45, 0.35) if woman else (0.1, 0.5, 0.4)))
    bottom_kind = str(rng.choice(BOTTOMS, p=(0.42, 0.16, 0.24, 0.18) if woman else (0.7, 0.3, 0.0, 0.0)))
    top = _garment(rng, (0.24, 0.20, 0.08, 0.14, 0.12, 0.11, 0.11))
    bottom = top if bottom_kind == "dress" else _garment(rng, (0.78, 0.04, 0.06, 0.08, 0.04, 0.0, 0.0), top.name)
    shoe_name, shoe = _named(rng, CLOTH_COLOURS, 0.03)
    return Identity(
        seed=seed,
        figure="woman-like" if woman else "man-like",
        height=rng.uniform(1.52, 1.76) if woman else rng.uniform(1.60, 1.86),
        build=rng.uniform(0.84, 1.16) if woman else rng.uniform(0.88, 1.24),
        head_ratio=rng.uniform(0.200, 0.216),
        leg_ratio=rng.uniform(0.445, 0.475),
        shoulder_ratio=rng.uniform(0.098, 0.110) if woman else rng.uniform(0.112, 0.128),
        hip_ratio=rng.uniform(0.054, 0.062) if woman else rng.uniform(0.048, 0.055),
        skin_name=skin_name,
        skin=skin,
        hair_style=str(rng.choice(HAIR_STYLES, p=odds)),
        hair_name=hair_name,
        hair=hair,
        fringe=rng.uniform(0.0, 1.0),
        parting=rng.uniform(-0.6, 0.6),
        top=top,
        sleeves=sleeves,
        neckline=rng.uniform(0.0, 1.0),
        bottom_kind=bottom_kind,
        bottom=bottom,
        bottom_length=rng.uniform(0.45, 0.95),
        shoe_name=shoe_name,
        shoe=shoe,
        sock=CLOTH_COLOURS[str(rng.choice(["white", "grey", "black"]))],
        face=_make_face(rng, woman, skin),
    )


def _make_face(rng: np.random.Generator, woman: bool, skin: Colour) -> Face:
    eye_name, eye_colour = _named(rng, EYE_COLOURS, 0.02)
    lip = 0.55 * np.array(skin) + 0.45 * np.array((0.78, 0.12, 0.20) if woman else (0.62, 0.24, 0.22))
    glasses = str(rng.choice(["none", "round", "square"], p=(0.68, 0.16, 0.16)))
    return Face(
        eye_name=eye_name,
        eye_colour=eye_colour,
        eye_size=rng.uniform(0.19, 0.27) + 0.02 * woman,
        eye_spacing=rng.uniform(0.38, 0.50),
        eye_height=rng.uniform(-0.10, 0.02),
        eye_slant=rng.uniform(-0.16, 0.16),
        brow_thickness=rng.uniform(0.030, 0.055) if woman else rng.uniform(0.045, 0.085),
        brow_angle=rng.uniform(-0.26, 0.20),
        brow_height=rng.uniform(0.22, 0.30),
        nose_size=rng.uniform(0.75, 1.10) if woman else rng.uniform(0.85, 1.40),
        nose_height=rng.uniform(-0.40, -0.28),
        mouth_width=rng.uniform(0.26, 0.46),
        mouth_height=rng.uniform(-0.66, -0.57),
        lip_thickness=rng.uniform(0.05, 0.10) if woman else rng.uniform(0.035, 0.075),
        lip_colour=_colour(lip),
        smile=rng.uniform(0.0, 1.3),
        jaw_width=rng.uniform(0.82, 1.0) if woman else rng.uniform(0.92, 1.18),
        head_width=rng.uniform(0.92, 1.08),
        blush=rng.uniform(0.0, 0.5) * (1.0 if woman else 0.4),
        beard="none" if woman else str(rng.choice(BEARDS, p=(0.52, 0.16, 0.12, 0.20))),
        glasses=glasses,
        glasses_colour=CLOTH_COLOURS[str(rng.choice(["black", "brown", "red", "blue"], p=(0.6, 0.2, 0.1, 0.1)))],
    )


def _garment(rng: np.random.Generator, pattern_odds: tuple[float, ...], avoid: str = "") -> Garment:
    names = [name for name in CLOTH_COLOURS if name != avoid]
    name = str(rng.choice(names))
    accent = str(rng.choice([other for other in names if other != name]))
    if np.abs(np.array(CLOTH_COLOURS[name]) - CLOTH_COLOURS[accent]).sum() < 0.7:
        accent = "white" if sum(CLOTH_COLOURS[name]) < 1.6 else "black"
    colour = np.array(CLOTH_COLOURS[name]) + rng.uniform(-0.05, 0.05, 3)
    return Garment(
        name=name,
        colour=_colour(colour),
        accent=CLOTH_COLOURS[accent],
        pattern=str(rng.choice(PATTERNS, p=pattern_odds)),
        scale=rng.uniform(0.07, 0.13),
    )


def _named(
    rng: np.random.Generator, table: dict[str, Colour], jitter: float, odds: tuple[float, ...] | None = None
) -> tuple[str, Colour]:
    name = str(rng.choice(list(table), p=odds))
    return name, _colour(np.array(table[name]) + rng.uniform(-jitter, jitter, 3))


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = (float(value) for value in np.clip(values, 0.02, 0.98))
    return red, green, blue


def _hair_words(style: str, colour: str) -> str:
    shapes = {"bob": "a {} bob", "ponytail": "a {} ponytail", "bun": "{} hair in a bun", "mohawk": "a {} mohawk"}
    return shapes.get(style, style + " {} hair").format(colour)


def _cloth_words(garment: Garment) -> str:
    if garment.pattern == "plain":
        return garment.name
    return f"{garment.name} emblem" if garment.pattern == "emblem" else f"{garment.name} {garment.pattern}"


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeio' else 'a'} {words}"
