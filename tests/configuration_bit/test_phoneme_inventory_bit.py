import pytest

from configuration_bit.phoneme_inventory_bit import CLASS_ORDERS, LM_ORDER, MODEL_ORDER, PHONEMES, class_permutation


def test_the_inventory_has_39_phonemes_in_alphabetical_order():
    assert len(PHONEMES) == 39
    assert list(PHONEMES) == sorted(PHONEMES)


def test_the_model_order_is_blank_phonemes_silence():
    assert MODEL_ORDER[0] == "<blank>" and MODEL_ORDER[1] == "AA" and MODEL_ORDER[39:] == ("ZH", "SIL")


def test_the_language_model_order_is_what_the_benchmark_concatenates():
    assert (MODEL_ORDER[0], MODEL_ORDER[40], *MODEL_ORDER[1:40]) == LM_ORDER


@pytest.mark.parametrize("source", CLASS_ORDERS)
@pytest.mark.parametrize("target", CLASS_ORDERS)
def test_a_permutation_moves_every_class_to_its_place_and_back(source, target):
    there, back = class_permutation(source, target), class_permutation(target, source)
    assert tuple(CLASS_ORDERS[source][i] for i in there) == CLASS_ORDERS[target]
    assert [there[i] for i in back] == list(range(41))


def test_an_unknown_order_is_refused_by_name():
    with pytest.raises(ValueError, match="'kaldi'"):
        class_permutation("kaldi", "model")
