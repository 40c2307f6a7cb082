"""A corpus on a device gives the batches of the corpus on disk."""

import pytest
import torch

from bit_speech.data.resident_corpus import ResidentCorpus

from .test_pretraining_corpus import corpus, monkey, person  # noqa: F401 (fixtures)


def test_batches_on_the_device_are_those_of_the_store(corpus):  # noqa: F811
    resident = ResidentCorpus(corpus, "cpu")
    assert len(resident) == len(corpus)
    for indices in ([0], [3, 1, 5], [len(corpus) - 1, len(corpus) - 3]):
        expected, found = (made.batch(indices, with_counts=True) for made in (corpus, resident))
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            assert torch.equal(found[key], value), key


def test_the_values_stay_as_small_as_they_are_stored(corpus):  # noqa: F811
    assert {values.dtype for values, _, _ in ResidentCorpus(corpus, "cpu")._stored.values()} == {torch.uint8}


def test_a_batch_of_two_datasets_is_refused(corpus):  # noqa: F811
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        ResidentCorpus(corpus, "cpu").batch([0, len(corpus) - 1])


def test_a_selection_can_be_resident(corpus):  # noqa: F811
    part = corpus.select([len(corpus) - 1, len(corpus) - 2])
    assert torch.equal(ResidentCorpus(part, "cpu").batch([1])["input_features"], part.batch([1])["input_features"])
