"""Two clocks that recorded the same sound: how far apart they are, and how much one runs ahead of the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

ENVELOPE_HZ: float = 200.0


@dataclass(frozen=True)
class ClockEstimate:
    """The sound's clock as a straight line in that of the iEEG: `sound_s = offset_s + (1 + drift) * ieeg_s`.

    Attributes:
        offset_s (`float`): second of the sound file at which the iEEG begins.
        drift_ppm (`float`): seconds that the sound's clock gains in a million.
        residual_s (`float`): median distance of the measured points from the line.
        num_points (`int`): stretches whose match was clear.
        num_stretches (`int`): stretches that were tried.
    """

    offset_s: float
    drift_ppm: float
    residual_s: float
    num_points: int
    num_stretches: int

    def anchors(self, start_s: float, stop_s: float) -> list[tuple[float, float]]:
        """The line as two points.

        Args:
            start_s (`float`): second of the iEEG.
            stop_s (`float`): a later one.

        Returns:
            `list[tuple[float, float]]`: (iEEG, sound) in seconds.
        """
        return [(t, self.offset_s + (1 + 1e-6 * self.drift_ppm) * t) for t in (start_s, stop_s)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a report.

        Returns:
            `dict`: the attributes.
        """
        return dict(vars(self))


def envelope(samples: np.ndarray, rate_hz: float) -> np.ndarray:
    """Loudness over time: root mean square in bins of 5 ms.

    Args:
        samples (`np.ndarray` of shape `(S,)`): sound.
        rate_hz (`float`): samples per second.

    Returns:
        `np.ndarray`: at 200 Hz, compressed by a cube root so that loud bangs do not decide.
    """
    borders = np.round(np.arange(int(len(samples) / rate_hz * ENVELOPE_HZ) + 1) / ENVELOPE_HZ * rate_hz).astype(int)
    centred = samples.astype(np.float64) - samples.mean()
    energy = np.add.reduceat(centred[: borders[-1]] ** 2, borders[:-1])
    return np.cbrt(np.sqrt(energy / np.diff(borders)))


def estimate_clock(
    reference: np.ndarray,
    sound: np.ndarray,
    stretch_s: float = 20.0,
    every_s: float = 60.0,
    least_correlation: float = 0.5,
) -> ClockEstimate:
    """Find offset and drift between two envelopes of the same sound.

    Args:
        reference (`np.ndarray` of shape `(F,)`): envelope of the sound channel of the iEEG system, at 200 Hz.
        sound (`np.ndarray` of shape `(G,)`): envelope of the sound file, at 200 Hz.
        stretch_s (`float`): seconds that are matched at a time.
        every_s (`float`): seconds from one stretch to the next.
        least_correlation (`float`): matches below are left out.

    Returns:
        `ClockEstimate`: from the median of all slopes between matches (Theil and Sen), which a quarter of wrong matches
        does not move.

    Raises:
        ValueError: if fewer than three stretches match.
    """
    from scipy.signal import fftconvolve

    size, found, tried = round(stretch_s * ENVELOPE_HZ), [], 0
    energy = np.concatenate([[0.0], np.cumsum(sound**2)])
    total = np.concatenate([[0.0], np.cumsum(sound)])
    if len(sound) < size:
        raise ValueError(f"the sound lasts {len(sound) / ENVELOPE_HZ:.1f} s; at least {stretch_s} s are needed")
    mean = (total[size:] - total[:-size]) / size
    spread = np.sqrt(np.maximum((energy[size:] - energy[:-size]) / size - mean**2, 1e-12))
    # A silent stretch has a spread near 0, and would match anything.
    spread = np.maximum(spread, 0.05 * spread.max())
    for start in range(0, len(reference) - size + 1, max(1, round(every_s * ENVELOPE_HZ))):
        piece = reference[start : start + size]
        tried += 1
        if piece.std() <= 1e-9 * abs(piece.mean()) or piece.std() == 0:
            continue
        piece = (piece - piece.mean()) / piece.std()
        match = fftconvolve(sound, piece[::-1], "valid") / size / spread
        best = int(match.argmax())
        if match[best] < least_correlation:
            continue
        finer = 0.0
        if 0 < best < len(match) - 1:  # the top of a parabola through three points
            left, top, right = match[best - 1 : best + 2]
            finer = 0.5 * (left - right) / (left - 2 * top + right)
        found.append((start / ENVELOPE_HZ, (best + finer) / ENVELOPE_HZ))
    if len(found) < 3:
        raise ValueError(
            f"only {len(found)} of {tried} stretches of sound match: is it the sound of the same recording? Give "
            "audio_start_s by hand otherwise"
        )
    ieeg, other = np.array(found).T
    first, second = np.triu_indices(len(ieeg), 1)
    slope = float(np.median((other[second] - other[first]) / (ieeg[second] - ieeg[first])))
    offset = float(np.median(other - slope * ieeg))
    residual = float(np.median(np.abs(other - offset - slope * ieeg)))
    return ClockEstimate(offset, 1e6 * (slope - 1), residual, len(found), tried)
