"""What the speech organs do: articulatory targets, coarticulation and durations of phones.

States of a simulated utterance, in this order: the 39 phonemes (0-38), SIL between words (39), silence before speech
(40) and silence after speech (41). The last two carry no label.
"""

from __future__ import annotations

from math import lgamma

import numpy as np

from configuration_bit.phoneme_inventory_bit import PHONEMES

NUM_PHONES = len(PHONEMES)
SIL_STATE = NUM_PHONES
LEAD_STATE = NUM_PHONES + 1
TRAIL_STATE = NUM_PHONES + 2
NUM_STATES = NUM_PHONES + 3

LATENTS = (
    "speech_gate",
    "voicing",
    "labial",
    "coronal",
    "dorsal",
    "height",
    "backness",
    "rounding",
    "nasality",
    "frication",
    "closure",
    "sibilance",
    "rhotic",
    "lateral",
    "tenseness",
    "offglide_front",
    "offglide_back",
)
"""Names of the articulatory latents; targets lie between -1 and 1."""

# Height and backness are graded (Ladefoged's vowel space); a name left out is 0. Consonants close the jaw to a degree
# that depends on their manner. "dental" and "post-alveolar" places are written as partial coronal with backness.
_TARGETS = {
    "AA": "voicing=1 height=-1 backness=0.6 tenseness=0.6",
    "AE": "voicing=1 height=-0.8 backness=-0.8 tenseness=0.2",
    "AH": "voicing=1 height=-0.25 backness=0.1 tenseness=-0.7",
    "AO": "voicing=1 height=-0.6 backness=0.9 rounding=0.7 tenseness=0.6",
    "AW": "voicing=1 height=-0.75 backness=0.1 rounding=0.3 tenseness=0.6 offglide_back=1",
    "AY": "voicing=1 height=-0.75 backness=0.1 tenseness=0.6 offglide_front=1",
    "B": "voicing=1 labial=1 closure=1 height=0.3",
    "CH": "coronal=0.9 closure=0.7 frication=0.7 sibilance=0.8 backness=0.3 height=0.7 rounding=0.3",
    "D": "voicing=1 coronal=1 closure=1 height=0.5",
    "DH": "voicing=1 coronal=0.7 frication=0.6 height=0.3 backness=-0.6",
    "EH": "voicing=1 height=-0.3 backness=-0.8 tenseness=-0.2",
    "ER": "voicing=1 height=0.1 backness=0.3 rhotic=1 rounding=0.3 tenseness=0.3",
    "EY": "voicing=1 height=0.3 backness=-0.9 tenseness=0.7 offglide_front=0.7",
    "F": "labial=0.7 frication=0.9 height=0.3 backness=-0.2",
    "G": "voicing=1 dorsal=1 closure=1 height=0.5 backness=0.4",
    "HH": "frication=0.6 height=-0.2",
    "IH": "voicing=1 height=0.6 backness=-0.7 tenseness=-0.5",
    "IY": "voicing=1 height=1 backness=-1 tenseness=0.7",
    "JH": "voicing=1 coronal=0.9 closure=0.7 frication=0.7 sibilance=0.8 backness=0.3 height=0.7 rounding=0.3",
    "K": "dorsal=1 closure=1 height=0.5 backness=0.4",
    "L": "voicing=1 coronal=0.7 lateral=1 backness=0.3 height=0.1",
    "M": "voicing=1 labial=1 closure=0.8 nasality=1 height=0.3",
    "N": "voicing=1 coronal=1 closure=0.8 nasality=1 height=0.4",
    "NG": "voicing=1 dorsal=1 closure=0.8 nasality=1 height=0.5 backness=0.4",
    "OW": "voicing=1 height=0.1 backness=0.9 rounding=0.8 tenseness=0.7 offglide_back=0.7",
    "OY": "voicing=1 height=-0.4 backness=0.8 rounding=0.7 tenseness=0.6 offglide_front=1",
    "P": "labial=1 closure=1 height=0.3",
    "R": "voicing=1 coronal=0.4 rhotic=1 rounding=0.5 height=0.3 backness=0.2",
    "S": "coronal=1 frication=1 sibilance=1 height=0.8 backness=-0.2",
    "SH": "coronal=0.8 frication=1 sibilance=0.8 backness=0.4 height=0.7 rounding=0.5",
    "T": "coronal=1 closure=1 height=0.5",
    "TH": "coronal=0.7 frication=0.7 height=0.3 backness=-0.6",
    "UH": "voicing=1 height=0.5 backness=0.6 rounding=0.4 tenseness=-0.5",
    "UW": "voicing=1 height=0.9 backness=0.7 rounding=1 tenseness=0.7",
    "V": "voicing=1 labial=0.7 frication=0.8 height=0.3 backness=-0.2",
    "W": "voicing=1 labial=0.6 rounding=1 height=0.8 backness=0.9",
    "Y": "voicing=1 height=0.9 backness=-0.9 coronal=0.2",
    "Z": "voicing=1 coronal=1 frication=0.9 sibilance=1 height=0.8 backness=-0.2",
    "ZH": "voicing=1 coronal=0.8 frication=0.9 sibilance=0.8 backness=0.4 height=0.7 rounding=0.5",
}

# Mean duration relative to the mean phone, from the orderings in Crystal & House 1988 (doi:10.1121/1.396251).
_RELATIVE_DURATIONS = {
    **dict.fromkeys(("AA", "AE", "AO", "ER", "EY", "IY", "OW", "UW"), 1.25),
    **dict.fromkeys(("AW", "AY", "OY"), 1.5),
    **dict.fromkeys(("EH", "IH", "UH"), 0.95),
    **dict.fromkeys(("AH",), 0.8),
    **dict.fromkeys(("B", "D", "G", "P", "T", "K"), 0.85),
    **dict.fromkeys(("CH", "JH"), 1.1),
    **dict.fromkeys(("F", "S", "SH"), 1.15),
    **dict.fromkeys(("DH", "HH", "TH", "V", "Z", "ZH"), 0.9),
    **dict.fromkeys(("L", "M", "N", "NG", "R", "W", "Y"), 0.85),
}


def articulatory_targets() -> np.ndarray:
    """Give the articulatory target of every state.

    Returns:
        `np.ndarray` of shape `(42, 17)`: float64, columns as in `LATENTS`. Silences differ from phones by their speech
        gate, and SIL between words keeps the gate half open.

    Example:
        >>> articulatory_targets().shape
        (42, 17)
    """
    targets = np.zeros((NUM_STATES, len(LATENTS)))
    for row, phone in enumerate(PHONEMES):
        targets[row, 0] = 1.0
        for item in _TARGETS[phone].split():
            name, value = item.split("=")
            targets[row, LATENTS.index(name)] = float(value)
    targets[SIL_STATE, 0] = -0.3
    targets[[LEAD_STATE, TRAIL_STATE], 0] = -1.0
    return targets


def carry_over(transient_bins: int) -> np.ndarray:
    """Give the share of the previous target that is still present at each age of a segment.

    Args:
        transient_bins (`int`): bins until the target of the segment is reached.

    Returns:
        `np.ndarray` of shape `(transient_bins + 1,)`: a raised cosine that falls from near 1 to exactly 0.

    Example:
        >>> [round(float(share), 2) for share in carry_over(2)]
        [0.85, 0.15, 0.0]
    """
    ages = np.arange(transient_bins)
    return np.append(0.5 * (1 + np.cos(np.pi * (ages + 0.5) / transient_bins)), 0.0)


def _shifted_negative_binomial(minimum: int, mean: float, shape: float, length: int) -> np.ndarray:
    """Probabilities of durations 1..length: `minimum` plus a negative binomial of the given mean and shape."""
    probabilities = np.zeros(length)
    excess = max(mean - minimum, 1e-3)
    q = excess / (excess + shape)
    for extra in range(length - minimum + 1):
        log_p = lgamma(extra + shape) - lgamma(shape) - lgamma(extra + 1) + shape * np.log1p(-q) + extra * np.log(q)
        probabilities[minimum - 1 + extra] = np.exp(log_p)
    return probabilities


def duration_hazards(
    phone_duration_bins: float,
    phone_duration_shape: float,
    min_phone_bins: int,
    pause_bins: float,
    short_pause_probability: float,
    lead_silence_bins: float,
    trail_silence_bins: float,
    max_age_bins: int = 40,
) -> np.ndarray:
    """Give the probability that a segment ends at each age: the whole duration model.

    Args:
        phone_duration_bins (`float`): mean duration of the average phone, in bins.
        phone_duration_shape (`float`): shape of the negative binomial above the minimum; larger is more regular.
        min_phone_bins (`int`): no phone is shorter.
        pause_bins (`float`): mean of a long pause between words, in bins.
        short_pause_probability (`float`): share of word boundaries with hardly any pause (2-4 bins).
        lead_silence_bins (`float`): mean silence before speech, in bins.
        trail_silence_bins (`float`): mean silence after speech, in bins.
        max_age_bins (`int`): from this age on the hazard is constant, so that durations have a geometric tail.

    Returns:
        `np.ndarray` of shape `(42, max_age_bins)`: `[state, age]` is P(the segment lasts `age + 1` bins | it lasts at
        least that long). Generation and the ideal observer use this same table.

    Raises:
        ValueError: when the mean phone is not longer than the shortest phone.
    """
    if phone_duration_bins * min(_RELATIVE_DURATIONS.values()) <= min_phone_bins:
        raise ValueError(
            f"a mean phone of {phone_duration_bins:.1f} bins is too short for a minimum of {min_phone_bins} bins: "
            "raise phone_duration_ms or lower min_phone_bins"
        )
    pmf = np.zeros((NUM_STATES, 6 * max_age_bins))
    length = pmf.shape[1]
    for row, phone in enumerate(PHONEMES):
        mean = phone_duration_bins * _RELATIVE_DURATIONS[phone]
        pmf[row] = _shifted_negative_binomial(min_phone_bins, mean, phone_duration_shape, length)
    short = _shifted_negative_binomial(2, 2.6, 2.0, length)
    pause = _shifted_negative_binomial(3, max(pause_bins, 3.5), 2.0, length)
    pmf[SIL_STATE] = short_pause_probability * short + (1 - short_pause_probability) * pause
    pmf[LEAD_STATE] = _shifted_negative_binomial(3, max(lead_silence_bins, 4.0), 3.0, length)
    pmf[TRAIL_STATE] = _shifted_negative_binomial(3, max(trail_silence_bins, 4.0), 3.0, length)
    survival = np.cumsum(pmf[:, ::-1], axis=1)[
        :, ::-1
    ]  # summed from the tail, so that late hazards keep their precision
    return np.where(survival > 0, pmf / np.maximum(survival, 1e-300), 1.0)[:, :max_age_bins]


def duration_cdf(hazards: np.ndarray, length: int = 1024) -> np.ndarray:
    """Turn hazards into cumulative probabilities of durations.

    Args:
        hazards (`np.ndarray` of shape `(S, A)`): as from `duration_hazards`; the last age stands for all later ones.
        length (`int`): longest duration of the table, in bins.

    Returns:
        `np.ndarray` of shape `(S, length)`: `[state, d - 1]` is P(duration <= d).
    """
    tail = np.repeat(hazards[:, -1:], length - hazards.shape[1], axis=1)
    survival = np.cumprod(1 - np.concatenate([hazards, tail], axis=1), axis=1)
    return 1 - survival
