"""High dynamic range and wide gamut to the colours of ordinary pictures: sRGB, whose primaries are BT.709's.

Display-referred, as ITU-R BT.2408 describes it: light as a reference display shows it, HDR reference white (203 cd/m2) put
on SDR white, wide colours cut to BT.709. What is brighter than white is pressed together just below it.
"""

import functools

import cv2
import numpy as np

REFERENCE_WHITE = 203.0  # cd/m2, BT.2408
HLG_PEAK, HLG_GAMMA = 1000.0, 1.2  # cd/m2 and system gamma of the reference display, BT.2100
PQ_PEAK = 10000.0  # cd/m2, SMPTE ST 2084
KNEE = 0.95  # of SDR white, in linear light: up to here colours stay as they are
LUMINANCE = (0.2627, 0.6780, 0.0593)  # of BT.2020's red, green and blue
TO_BT709 = {  # linear RGB to linear RGB, from BT.2087 and from the chromaticities of Display P3
    "bt2020": ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)),
    "p3": ((1.2249, -0.2247, 0.0), (-0.0420, 1.0419, 0.0), (-0.0197, -0.0786, 1.0979)),
}
STEPS = 65536  # of the tables


def to_sdr(signal: np.ndarray, transfer: str, primaries: str) -> np.ndarray:
    """uint8 (h, w, 3) from R'G'B' float32 (h, w, 3) in [0, 1]; transfer: "hlg", "pq" or "sdr"; primaries: "bt709" or a key of
    TO_BT709."""
    light = light_table(transfer)[_steps(signal)]  # 1 is SDR white
    if transfer == "hlg":  # BT.2100: the reference display's OOTF; only now is 1 white
        luminance = cv2.transform(light, np.array([LUMINANCE], np.float32))
        light *= cv2.pow(luminance, HLG_GAMMA - 1)[..., None] * (HLG_PEAK / REFERENCE_WHITE)
    if primaries in TO_BT709:
        light = np.maximum(cv2.transform(light, np.array(TO_BT709[primaries], np.float32)), 0)
    if transfer != "sdr":
        light = press_highlights(light)
    return srgb_table()[_steps(light)]


def press_highlights(light: np.ndarray) -> np.ndarray:
    """Light (h, w, 3), 1 is SDR white, brought below 1: up to KNEE as it is, above it an exponential curve that goes on with
    the same slope, of the largest of the three channels, so that hues stay."""
    peak, room = light.max(axis=-1, keepdims=True), 1 - KNEE
    pressed = KNEE + room * (1 - np.exp((KNEE - np.maximum(peak, KNEE)) / room))
    return light * np.where(peak > KNEE, pressed / np.maximum(peak, KNEE), 1).astype(np.float32)


@functools.cache
def light_table(transfer: str) -> np.ndarray:
    """float32 (STEPS,): light of each signal in [0, 1]; for "hlg" that of the scene, 1 its brightest."""
    x = np.linspace(0, 1, STEPS)
    if transfer == "hlg":  # BT.2100, inverse OETF
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(x <= 0.5, x**2 / 3, (np.exp((x - c) / a) + b) / 12)
    elif transfer == "pq":  # SMPTE ST 2084, EOTF
        m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
        power = x ** (1 / m2)
        light = (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1) * (PQ_PEAK / REFERENCE_WHITE)
    else:  # IEC 61966-2-1
        light = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)


@functools.cache
def srgb_table() -> np.ndarray:
    """uint8 (STEPS,): the sRGB value of each light in [0, 1]."""
    x = np.linspace(0, 1, STEPS)
    return np.rint(255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)).astype(np.uint8)


def _steps(values: np.ndarray) -> np.ndarray:
    return (np.clip(values, 0, 1) * (STEPS - 1) + 0.5).astype(np.uint16)
