"""Further targets of windows: anything that was written on the clock of a recording, such as text or video."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bit_speech.data.aligned_segments import WindowSet


def frame_targets(windows: WindowSet, folder: str | Path, rate_hz: float, window_s: float = 3.0) -> np.ndarray:
    """Average frames that somebody else made over every window.

    Args:
        windows (`WindowSet`): whose files and starts are used.
        folder (`str`): with `<file_id>.npy` of shape `(F, D)` for every file, from the beginning of the recording.
        rate_hz (`float`): frames per second.
        window_s (`float`): duration of a window in seconds.

    Returns:
        `np.ndarray` of shape `(N, D)`: float32.

    Raises:
        FileNotFoundError: if a recording has no frames.
        ValueError: if the rate is not positive, or frames have the wrong shape or end before a window.

    Example:
        ```python
        # One vector every half second, for example of the words that are on the screen.
        np.save("frames/day0_file1.npy", vectors)
        frame_targets(windows, "frames", rate_hz=2.0)
        ```
    """
    if not rate_hz > 0:
        raise ValueError(f"rate_hz is {rate_hz}: give the frames per second")
    found = [np.empty(0)] * len(windows)
    for name in np.unique(windows.file):
        path = Path(folder) / f"{name}.npy"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: every recording needs frames (F, D) of its own")
        frames = np.load(path, mmap_mode="r", allow_pickle=False)
        if frames.ndim != 2:
            raise ValueError(f"{path} has the shape {frames.shape}, expected (frames, features)")
        for row in np.flatnonzero(windows.file == name):
            start = round(float(windows.start_s[row]) * rate_hz)
            stop = max(start + 1, round((float(windows.start_s[row]) + window_s) * rate_hz))
            if stop > len(frames):
                raise ValueError(
                    f"{path} holds {len(frames) / rate_hz:.1f} s at {rate_hz} Hz, a window ends at "
                    f"{windows.start_s[row] + window_s:.1f} s: is the rate right?"
                )
            found[row] = frames[start:stop].mean(axis=0, dtype=np.float64)
    return np.stack(found).astype(np.float32)
