"""The phoneme inventory and the three class orders that exist in the field.

Three 41-class orders are in use and they are incompatible: reading logits in the wrong one gives silent nonsense. Every
place that stores or reads class probabilities therefore names its order, and [`class_permutation`] refuses to guess.
"""

from __future__ import annotations

PHONEMES: tuple[str, ...] = tuple(
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH".split()  # noqa: SIM905
)
BLANK_TOKEN: str = "<blank>"
SIL_TOKEN: str = "SIL"

MODEL_ORDER: tuple[str, ...] = (BLANK_TOKEN, *PHONEMES, SIL_TOKEN)
LM_ORDER: tuple[str, ...] = (BLANK_TOKEN, SIL_TOKEN, *PHONEMES)
TF24_ORDER: tuple[str, ...] = (*PHONEMES, SIL_TOKEN, BLANK_TOKEN)

CLASS_ORDERS: dict[str, tuple[str, ...]] = {"model": MODEL_ORDER, "lm": LM_ORDER, "tf24": TF24_ORDER}


def class_permutation(source: str, target: str) -> list[int]:
    """Index list that turns class scores in one order into another order.

    Args:
        source (`str`): name of the order that the scores have: `"model"`, `"lm"` or `"tf24"`.
        target (`str`): name of the order that is wanted.

    Returns:
        `list[int]`: 41 indices such that `scores_in_target = scores_in_source[..., indices]`.

    Raises:
        ValueError: if an order name is unknown. The order is never guessed from the number of classes, because all
            three have 41.

    Note:
        `"model"` is the order of the Brain-to-Text '25 labels and of every model here (blank 0, AA..ZH 1-39, SIL 40);
        `"lm"` is that of the benchmark's language-model decoder; `"tf24"` that of the TensorFlow baseline of 2024.

    Example:
        ```python
        >>> class_permutation("model", "lm")[:4]
        [0, 40, 1, 2]
        >>> LM_ORDER == tuple(MODEL_ORDER[i] for i in class_permutation("model", "lm"))
        True

        ```
    """
    for name in (source, target):
        if name not in CLASS_ORDERS:
            raise ValueError(f"Unknown class order {name!r}: name one of {sorted(CLASS_ORDERS)}; it is never guessed.")
    position = {token: index for index, token in enumerate(CLASS_ORDERS[source])}
    return [position[token] for token in CLASS_ORDERS[target]]
