import json
import re

import pytest

from bit_speech import BITConfig, BITFeatureExtractor, BITForCTC, BITProcessor, PhonemeTokenizer
from configuration_bit.remote_code_bit import AUTO_MAPS, ROOMS, flatten_remote_code

CODE = {
    "configuration_bit.py",
    "feature_extraction_bit.py",
    "layers_bit.py",
    "masking_bit.py",
    "modeling_bit.py",
    "phoneme_inventory_bit.py",
    "processing_bit.py",
    "remote_code_bit.py",
    "tokenization_phoneme.py",
}


@pytest.fixture
def model():
    config = BITConfig(participants={"t15": 3}, hidden_size=12, num_attention_heads=2, num_hidden_layers=1)
    return BITForCTC(config)


def snapshot(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_saved_model_carries_all_its_code_and_the_full_auto_map(tmp_path, model):
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.glob("*.py")} >= CODE
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"] == AUTO_MAPS["bit_speech"]


def test_every_import_in_a_saved_folder_finds_its_file(tmp_path, model):
    model.save_pretrained(tmp_path)
    for path in tmp_path.glob("*.py"):
        text = path.read_text()
        assert not re.search(rf"^\s*(from|import) ({'|'.join(ROOMS)})\b(?!\.py)", text, re.MULTILINE), path.name
        for sibling in re.findall(r"^\s*from \.(\w+) import", text, re.MULTILINE):
            assert (tmp_path / f"{sibling}.py").is_file(), (path.name, sibling)


def test_every_entry_of_every_auto_map_exists():
    from importlib import import_module

    for auto_map in AUTO_MAPS.values():
        for value in auto_map.values():
            stem, name = (value[0] if isinstance(value, list) else value).split(".")
            homes = [room for room in ROOMS if import_module(room).__path__ and _has(room, stem)]
            assert len(homes) == 1, (stem, homes)
            assert hasattr(import_module(f"{homes[0]}.{stem}"), name)


def _has(room, stem):
    from importlib.util import find_spec

    return find_spec(f"{room}.{stem}") is not None


def test_saving_twice_changes_nothing(tmp_path, model):
    model.save_pretrained(tmp_path)
    first = snapshot(tmp_path)
    flatten_remote_code(tmp_path)
    model.save_pretrained(tmp_path)
    assert snapshot(tmp_path) == first


def test_a_processor_folder_has_the_processing_code_only(tmp_path):
    BITProcessor(BITFeatureExtractor(participants={"t15": 3}), PhonemeTokenizer()).save_pretrained(tmp_path)
    files = {path.name for path in tmp_path.glob("*.py")}
    assert "processing_bit.py" in files and "modeling_bit.py" not in files
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert set(saved["auto_map"]) == {"AutoFeatureExtractor", "AutoTokenizer", "AutoProcessor"}
    assert saved["feature_extractor"]["auto_map"]["AutoFeatureExtractor"].endswith(".BITFeatureExtractor")
    assert "AutoTokenizer" in json.loads((tmp_path / "tokenizer_config.json").read_text())["auto_map"]


def test_foreign_files_in_a_folder_stay_as_they_are(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "mine.py").write_text("x = 1\n")
    flatten_remote_code(tmp_path)
    assert snapshot(tmp_path) == {"config.json": b'{"model_type": "bert"}', "mine.py": b"x = 1\n"}


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        flatten_remote_code(tmp_path / "nowhere")
