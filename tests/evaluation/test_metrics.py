"""The metrics of Hugging Face Evaluate load from local folders, offline, and give the same numbers."""

import evaluate
import pytest

from bit_speech.evaluation import phoneme_error_rate, word_error_rate
from bit_speech.evaluation.metrics import load_metric, metric_folder
from bit_speech.evaluation.metrics.per.per import PhonemeErrorRate


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path))


def test_metrics_load_from_their_folder_without_the_network():
    references, predictions = ["HH AY SIL", "N OW SIL"], ["HH EY SIL", "N OW"]
    metric = evaluate.load(str(metric_folder("per")))
    result = metric.compute(predictions=predictions, references=references)
    assert result["per"] == phoneme_error_rate(references, predictions).rate == pytest.approx(1 / 3)
    assert (result["substitutions"], result["deletions"]) == (1, 1)


def test_metrics_add_up_over_batches_as_a_trainer_adds_them():
    references, predictions = ["I can speak.", "Hello there!"], ["i can speak", "hello"]
    metric = load_metric("wer")
    for reference, prediction in zip(references, predictions, strict=True):
        metric.add_batch(references=[reference], predictions=[prediction])
    result = metric.compute(num_bootstrap=200)
    expected = word_error_rate(references, predictions, num_bootstrap=200)
    assert result["wer"] == expected.rate
    assert (result["low"], result["high"]) == (expected.low, expected.high)


def test_a_metric_is_a_class_of_its_own_too():
    assert PhonemeErrorRate().compute(predictions=["AA"], references=["AA"])["per"] == 0.0


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="bleu"):
        metric_folder("bleu")
