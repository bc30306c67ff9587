"""How a puppet moves: smooth periodic joint angles at any continuous time.

Angles in radians, times in seconds, lengths in metres. Arms and legs are described for the person's left side and
mirrored for the right, so equal numbers mean a symmetric pose.
"""

import dataclasses

import numpy as np

from meta_animator.puppets.rendering.streams import stream

ON_FOOT: tuple[str, ...] = ("walk", "wave", "dance", "turn")
MOTIONS: tuple[str, ...] = (*ON_FOOT, "sit")

ARM_ANGLES = ("raise", "swing", "twist", "elbow", "wrist", "turn", "curl")  # outward, forward, about the bone, bends
LEG_ANGLES = ("swing", "spread", "knee")
BODY_TRACKS = (  # x and z place the pelvis, or the feet where planted is 1 (and not 0)
    "x", "z", "yaw", "pelvis_roll", "chest_pitch", "chest_twist", "chest_roll", "head_pitch", "head_yaw", "head_roll",
    "planted",
)  # fmt: skip
TRACKS = (
    *BODY_TRACKS,
    *(f"arm_{angle}_{side}" for side in "lr" for angle in ARM_ANGLES),
    *(f"leg_{angle}_{side}" for side in "lr" for angle in LEG_ANGLES),
)
_REST = {"arm_raise": 0.16, "arm_elbow": 0.25, "arm_curl": 0.35, "leg_spread": 0.05, "leg_knee": 0.06}
_LIMITS = {"arm_elbow": (0.02, 2.4), "leg_knee": (0.0, 2.0), "arm_raise": (0.12, 2.7), "arm_curl": (0.0, 1.3)}
_LIMITS |= {"leg_spread": (0.02, 0.5), "head_yaw": (-1.1, 1.1), "head_pitch": (-0.5, 0.5)}


@dataclasses.dataclass(frozen=True)
class Track:
    """offset + a1 sin(w t + p1) + a2 sin(2 w t + p2), with w = 2 pi / period."""

    offset: float = 0.0
    a1: float = 0.0
    p1: float = 0.0
    a2: float = 0.0
    p2: float = 0.0

    def at(self, angle: float) -> float:
        """The value where the motion's base angle w t is `angle`."""
        return self.offset + self.a1 * np.sin(angle + self.p1) + self.a2 * np.sin(2 * angle + self.p2)


@dataclasses.dataclass(frozen=True)
class Rise:
    """`up` while the base angle is about 0, `down` about pi, still at both ends, `between` more on the way.

    `wave` is added in full where down, and not at all where up.
    """

    up: float
    down: float
    between: float = 0.0
    wave: Track = dataclasses.field(default_factory=Track)

    def at(self, angle: float) -> float:
        """The value where the motion's base angle is `angle`."""
        part = np.clip(0.5 - 0.7 * np.cos(angle), 0.0, 1.0)
        share = part * part * part * (part * (6 * part - 15) + 10)
        return self.up + share * (self.down - self.up + self.wave.at(angle)) + 4 * share * (1 - share) * self.between


@dataclasses.dataclass(frozen=True)
class Motion:
    """Periodic tracks by name (see TRACKS; a missing one rests) and `spin` whole body turns per period.

    `start` is the base angle at time 0.
    """

    kind: str
    period: float
    spin: int
    tracks: dict[str, Track | Rise]
    start: float = 0.0

    def pose(self, time: float) -> dict[str, float]:
        """The value of every track at `time` seconds, kept within the joints' limits."""
        return self.at(self.start + 2 * np.pi * time / self.period)

    def at(self, angle: float) -> dict[str, float]:
        """The value of every track where the base angle is `angle`, kept within the joints' limits."""
        pose = {name: self._value(name, angle) for name in TRACKS}
        pose["yaw"] += self.spin * angle
        return pose

    def _value(self, name: str, angle: float) -> float:
        joint = name[:-2] if name.endswith(("_l", "_r")) else name
        value = self.tracks[name].at(angle) if name in self.tracks else _REST.get(joint, 0.0)
        low, high = _LIMITS.get(joint, (-np.inf, np.inf))
        return float(np.clip(value, low, high))


def make_motion(seed: int, kind: str | None = None) -> Motion:
    """Draw a motion of `kind` (one of MOTIONS; None: one of ON_FOOT is drawn). ValueError for an unknown kind."""
    rng = stream(seed, "motion")
    drawn = str(rng.choice(ON_FOOT, p=(0.25, 0.2, 0.35, 0.2)))
    kind = drawn if kind is None else kind
    makers = {"walk": _walk, "wave": _wave, "dance": _dance, "turn": _turn, "sit": _sit}
    if kind not in makers:
        raise ValueError(f"motion kind must be one of {', '.join(MOTIONS)}, got {kind!r}")
    period, spin, tracks = makers[kind](stream(seed, f"motion/{kind}"))
    unknown = sorted(set(tracks) - set(TRACKS))
    assert not unknown, unknown
    start = stream(seed, "motion/start").uniform(0, 2 * np.pi) if kind == "sit" else 0.0
    return Motion(kind, period, spin, tracks, start)


_Plan = tuple[float, int, dict[str, Track | Rise]]


def _head(rng: np.random.Generator, amount: float = 1.0) -> dict[str, Track | Rise]:
    phase = rng.uniform(0, 2 * np.pi, 3)
    yaw, pitch, roll = amount * rng.uniform((0.1, 0.03, 0.02), (0.55, 0.14, 0.14))
    return {
        "head_yaw": Track(rng.normal(0, 0.12), yaw, phase[0], 0.3 * yaw, phase[1]),
        "head_pitch": Track(rng.normal(0.02, 0.04), pitch, phase[1]),
        "head_roll": Track(rng.normal(0, 0.03), roll, phase[2]),
    }


def _walk(rng: np.random.Generator) -> _Plan:
    stride, arm, lift = rng.uniform(0.25, 0.5), rng.uniform(0.25, 0.6), rng.uniform(0.25, 0.5)
    tracks = _head(rng, 0.6) | {
        "yaw": Track(rng.uniform(-0.7, 0.7), 0.08, 0.0),
        "x": Track(0.0, rng.choice([0.0, 0.08]), rng.uniform(0, 6)),
        "pelvis_roll": Track(0, 0.05, 0.0),
        "chest_twist": Track(0, 0.12, np.pi),
        "chest_pitch": Track(0.04, 0, 0, 0.02, 0.0),
    }
    elbow, spread = rng.uniform(0.3, 0.9), rng.uniform(0.14, 0.3)
    for side, phase in (("l", 0.0), ("r", np.pi)):
        tracks |= {
            f"leg_swing_{side}": Track(0.08, stride, phase),
            f"leg_knee_{side}": Track(0.12 + 0.6 * lift, 0.8 * lift, phase - 1.9 + np.pi, 0.2 * lift, 0.0),
            f"arm_swing_{side}": Track(0.05, arm, phase + np.pi),
            f"arm_elbow_{side}": Track(elbow, 0.2, phase + np.pi),
            f"arm_raise_{side}": Track(spread, 0.03, phase),
        }
    return rng.uniform(1.0, 1.5), 0, tracks


def _wave(rng: np.random.Generator) -> _Plan:
    tracks = _head(rng, 0.7) | {
        "yaw": Track(rng.uniform(-0.4, 0.4), 0.06, 1.0),
        "chest_roll": Track(0, 0.05, rng.uniform(0, 6)),
        "pelvis_roll": Track(0, 0.04, rng.uniform(0, 6)),
    }
    waving = [("l",), ("r",), ("l", "r")][rng.choice(3, p=(0.4, 0.4, 0.2))]
    for side in waving:
        tracks |= {
            f"arm_raise_{side}": Track(rng.uniform(1.2, 1.9), 0.12, 0.3),
            f"arm_twist_{side}": Track(rng.uniform(1.3, 1.7)),
            f"arm_elbow_{side}": Track(rng.uniform(0.9, 1.4), rng.uniform(0.2, 0.45), 0.0, 0.15, 1.0),
            f"arm_wrist_{side}": Track(0.0, 0.3, -0.6),
            f"arm_curl_{side}": Track(0.08, 0.08, 0.0),
        }
    if len(waving) == 1 and rng.random() < 0.5:  # the other hand on the hip
        side = "r" if waving == ("l",) else "l"
        tracks |= {f"arm_raise_{side}": Track(0.75, 0.03), f"arm_twist_{side}": Track(-1.0)}
        tracks |= {f"arm_elbow_{side}": Track(1.75, 0.04, 1.0), f"arm_swing_{side}": Track(-0.25)}
    return rng.uniform(0.9, 1.6), 0, tracks


def _dance(rng: np.random.Generator) -> _Plan:
    def free(low: float, high: float, share: float = 0.8) -> Track:
        """A track that stays within [low, high]."""
        half, phase = 0.5 * (high - low), rng.uniform(0, 2 * np.pi, 2)
        first = share * rng.uniform(0.35, 0.7) * half
        offset = 0.5 * (low + high) + rng.uniform(-0.25, 0.25) * half
        return Track(offset, first, phase[0], 0.4 * first, phase[1])

    tracks = _head(rng) | {
        "x": free(-0.10, 0.10),
        "yaw": free(-0.8, 0.8),
        "pelvis_roll": free(-0.2, 0.2),
        "chest_twist": free(-0.4, 0.4),
        "chest_roll": free(-0.22, 0.22),
        "chest_pitch": free(-0.08, 0.15),
    }
    high = rng.choice([1.4, 2.3])
    same = rng.random() < 0.4
    for side in "lr":
        tracks |= {
            f"arm_raise_{side}": free(0.2, high, 1.1),
            f"arm_swing_{side}": free(-0.3, 0.8),
            f"arm_twist_{side}": free(-0.2, 1.6),
            f"arm_elbow_{side}": free(0.2, 2.0, 1.1),
            f"arm_wrist_{side}": free(-0.4, 0.4),
            f"arm_curl_{side}": free(0.0, 0.8),
            f"leg_swing_{side}": free(-0.1, 0.4),
            f"leg_knee_{side}": free(0.05, 0.75),
            f"leg_spread_{side}": free(0.06, 0.3),
        }
    if same:  # both sides in step, as in many dances
        tracks |= {name[:-1] + "r": track for name, track in tracks.items() if name.startswith("arm") and name[-1] == "l"}
    return rng.uniform(1.4, 2.6), 0, tracks


def _turn(rng: np.random.Generator) -> _Plan:
    spin = int(rng.choice([-1, 0, 1], p=(0.25, 0.5, 0.25)))
    swing = 0.0 if spin else rng.uniform(0.7, 1.4)
    tracks = _head(rng, 0.5) | {"yaw": Track(rng.uniform(-0.3, 0.3), swing, rng.uniform(0, 6))}
    tracks |= {"chest_twist": Track(0, 0.15, 0.5), "pelvis_roll": Track(0, 0.03, 0.0, 0.02, 0.0)}
    for side, phase in (("l", 0.0), ("r", 1.3)):
        tracks |= {
            f"arm_raise_{side}": Track(rng.uniform(0.2, 0.7), 0.12, phase),
            f"arm_swing_{side}": Track(rng.uniform(-0.1, 0.3), 0.15, phase + 1),
            f"arm_elbow_{side}": Track(rng.uniform(0.3, 1.2), 0.2, phase),
            f"leg_swing_{side}": Track(0.1, 0.12, phase + np.pi * (side == "r")),
            f"leg_knee_{side}": Track(0.2, 0.15, phase + np.pi * (side == "r")),
        }
    return rng.uniform(3.0, 5.0) if spin else rng.uniform(2.4, 4.0), spin, tracks


def _sit(rng: np.random.Generator) -> _Plan:
    """Down on a seat behind the planted feet, a while there with the hands on the thighs or talking, and up again."""
    yaw, hip, knee = rng.uniform(-1.1, 1.1), rng.uniform(1.42, 1.56), rng.uniform(1.45, 1.7)
    tracks = _head(rng, 0.6) | {
        "planted": Track(1.0),
        "yaw": Track(yaw),
        "x": Track(0.18 * np.sin(yaw)),
        "z": Track(0.18 * np.cos(yaw)),
        "chest_pitch": Rise(0.02, rng.uniform(-0.06, 0.10), rng.uniform(0.3, 0.5), Track(0.0, 0.03, 1.0)),
        "chest_twist": Track(0.0, rng.uniform(0.04, 0.15), rng.uniform(0, 6)),
        "chest_roll": Track(0.0, 0.04, rng.uniform(0, 6)),
    }
    spread = rng.uniform(0.03, 0.09)
    talking = [(), ("l",), ("r",), ("l", "r")][rng.choice(4, p=(0.4, 0.2, 0.2, 0.2))]
    for side in "lr":
        phase = rng.uniform(0, 2 * np.pi)
        tracks |= {
            f"leg_swing_{side}": Rise(0.03, hip),
            f"leg_knee_{side}": Rise(0.06, knee),
            f"leg_spread_{side}": Track(spread),
        }
        if side in talking:
            tracks |= {
                f"arm_raise_{side}": Rise(0.16, rng.uniform(0.25, 0.45), 0.0, Track(0.0, 0.10, phase)),
                f"arm_swing_{side}": Rise(0.0, rng.uniform(0.2, 0.5), 0.2, Track(0.0, 0.0, 0.0, 0.15, phase)),
                f"arm_twist_{side}": Rise(0.0, rng.uniform(-0.1, 0.5)),
                f"arm_elbow_{side}": Rise(0.25, rng.uniform(1.4, 1.8), 0.0, Track(0.0, 0.1, phase, 0.25, phase)),
                f"arm_turn_{side}": Rise(0.0, rng.uniform(-0.6, 0.9)),
            }
        else:
            tracks |= {
                f"arm_raise_{side}": Rise(0.16, 0.14),
                f"arm_swing_{side}": Rise(0.0, rng.uniform(0.0, 0.12), 0.25),
                f"arm_elbow_{side}": Rise(0.25, rng.uniform(0.85, 0.98)),
                f"arm_wrist_{side}": Rise(0.0, -0.45),
                f"arm_turn_{side}": Rise(0.0, -1.3),
            }
    return rng.uniform(3.6, 5.0), 0, tracks
