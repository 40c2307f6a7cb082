"""`import bit_speech` is fast and makes the Auto classes know the models, whatever was imported before."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHECK = """
from transformers import AutoConfig, AutoModel, AutoModelForCTC, AutoModelForPreTraining
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING
import bit_speech as b
small = dict(hidden_size=12, num_hidden_layers=1, participants={"t15": 4})
config = AutoConfig.for_model("bit_speech", num_attention_heads=2, **small)
assert type(config) is b.BITConfig and type(AutoModelForCTC.from_config(config)) is b.BITForCTC
assert type(AutoModel.from_config(config)) is b.BITModel
config.mask_ratio = 0.5
assert type(AutoModelForPreTraining.from_config(config)) is b.BITForMaskedModeling
gru = AutoConfig.for_model("bit_speech_gru", **small)
assert type(AutoModelForCTC.from_config(gru)) is b.BITGRUForCTC
for c in (b.BITConfig, b.BITGRUConfig):
    assert FEATURE_EXTRACTOR_MAPPING[c] is b.BITFeatureExtractor
    assert TOKENIZER_MAPPING[c] is b.PhonemeTokenizer
    assert PROCESSOR_MAPPING[c] is b.BITProcessor
assert PROCESSOR_MAPPING[b.BITLLMConfig] is b.BITLLMProcessor
from transformers.pipelines import PIPELINE_REGISTRY
assert "neural-to-text" in PIPELINE_REGISTRY.supported_tasks
import sys
assert not [f for f in sys.meta_path if type(f).__module__.startswith("bit_speech")]
"""


def run(code: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_importing_the_library_loads_nothing_heavy():
    heavy = "torch transformers datasets accelerate numba matplotlib scipy"
    out = run(f"import sys, bit_speech; print([m for m in {heavy.split()!r} if m in sys.modules])")
    assert out.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error():
    import bit_speech

    with pytest.raises(AttributeError, match="BITEverything"):
        bit_speech.BITEverything  # noqa: B018


def test_every_public_name_can_be_had():
    import bit_speech

    for name in bit_speech.__all__:
        assert getattr(bit_speech, name).__name__ == name


# Each imports an auto module on another way; the first two half-way through transformers' own modules.
@pytest.mark.parametrize(
    "first",
    [
        "import bit_speech, transformers.modeling_layers",
        pytest.param("from bit_speech import BITForCTC", marks=pytest.mark.slow),
        pytest.param("from transformers import AutoModelForCTC; import bit_speech", marks=pytest.mark.slow),
        pytest.param("import bit_speech; from transformers import Trainer", marks=pytest.mark.slow),
        pytest.param("from bit_speech import BITProcessor", marks=pytest.mark.slow),
        pytest.param("import bit_speech; from transformers import LlamaForCausalLM", marks=pytest.mark.slow),
        pytest.param("import bit_speech; from transformers import pipeline", marks=pytest.mark.slow),
        pytest.param("import bit_speech, transformers.modeling_utils", marks=pytest.mark.slow),
        pytest.param("import bit_speech.pipelines", marks=pytest.mark.slow),
    ],
)
def test_the_auto_classes_know_the_models_whatever_is_imported_first(first):
    run(first + "\n" + CHECK)
