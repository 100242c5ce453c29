"""WAV files for the demo: real tones, of any size, made at the speed of the disk."""

from __future__ import annotations

import array
import math
import wave
from collections.abc import Iterator
from pathlib import Path

RATE = 44_100
SMALLEST, LARGEST = 50_000, 20_000_000


def sizes(count: int) -> list[int]:
    """`count` sizes in bytes, evenly spread on a logarithmic scale: many small, a few large."""
    ratio = (LARGEST / SMALLEST) ** (1 / max(1, count - 1))
    return [round(SMALLEST * ratio**number) for number in range(count)]


def write_tone(path: Path, size: int, pitch: int) -> None:
    """A mono 16-bit WAV file of about `size` bytes: a tone of `pitch` whole hertz."""
    second = array.array(
        "h", (round(12_000 * math.sin(2 * math.pi * pitch * n / RATE)) for n in range(RATE))
    ).tobytes()
    left = max(0, size - 44) // 2 * 2
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        while left > 0:
            # A whole number of waves fits into a second, so that the tone has no seam.
            piece = second[: min(left, len(second))]
            file.writeframesraw(piece)
            left -= len(piece)


def make_tones(folder: Path, count: int) -> Iterator[Path]:
    """`count` files with names such as tone-07-440hz.wav, each as it is done."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes(count)):
        pitch = round(110 * 2 ** (number / 12))
        path = folder / f"tone-{number:02}-{pitch}hz.wav"
        write_tone(path, size, pitch)
        yield path
