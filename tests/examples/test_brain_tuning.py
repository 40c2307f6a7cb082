"""Tuning and encoding run from end to end on a tiny cohort, and refuse what cannot work."""

import json

import numpy as np
import pytest
from transformers import Qwen2Config, Qwen2ForCausalLM, Wav2Vec2Config, Wav2Vec2Model

from bit_speech.data.story_runs import read_run, read_words
from bit_speech.training import train_tokenizer
from examples import brain_tune, encode_text, encode_voxels, llm_targets

BODY = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": [8, 8],
    "conv_kernel": [10, 4], "conv_stride": [80, 4], "feat_extract_norm": "layer", "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


def test_from_cohort_to_tuned_model_to_encoding_of_new_participants(tmp_path):
    Wav2Vec2Model(Wav2Vec2Config(**BODY)).save_pretrained(tmp_path / "speech")
    cohort = {"num_participants": 3, "num_stories": 5, "sentences_per_story": 6, "num_repeats": 2,
              "cohort": {"num_voxels": 8, "snr": 2.0}}  # fmt: skip
    scores = brain_tune.main([
        "--speech_checkpoint", str(tmp_path / "speech"), "--simulate", json.dumps(cohort),
        "--participants", "S00", "S01", "--model_config", '{"clip_s": 4.0}', "--weigh_by_ceiling", "true",
        "--output_dir", str(tmp_path / "run"), "--max_steps", "4", "--per_device_train_batch_size", "8",
        "--use_cpu", "true", "--disable_tqdm", "true", "--eval_strategy", "steps", "--save_strategy", "steps",
        "--eval_steps", "4", "--save_steps", "4",
    ])  # fmt: skip
    assert np.isfinite(scores["validation_correlation"])
    result = encode_voxels.main([
        "--stories", str(tmp_path / "run" / "cohort"), "--models", str(tmp_path / "speech"),
        str(tmp_path / "run" / "merged"), "--participants", "S02", "--layers", "1", "2", "--upper_layers", "1",
        "--story_counts", "2", "4", "--window_s", "2", "--stride_s", "1", "--num_permutations", "0",
        "--output_dir", str(tmp_path / "encoding"),
    ])  # fmt: skip
    assert [(row["participant"], row["stories"]) for row in result["rows"]] == [("S02", n) for n in (2, 2, 4, 4)]
    assert set(result["rows"][0]["regions"]) == {"AG", "LTC", "IFG", "A1", "early_auditory", "language"} - {"AG"}
    assert len(result["rows"][1]["gain_of_last_layer"]) == 3
    assert (tmp_path / "encoding" / "encoding.png").stat().st_size > 1000
    check_llm_targets(tmp_path)


def test_scores_are_drawn_on_the_surface_of_the_template(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    rng = np.random.default_rng(0)
    (tmp_path / "fsaverage" / "surf").mkdir(parents=True)
    for side in ("lh", "rh"):
        points, faces = 40 * rng.normal(size=(50, 3)), np.array([[0, 1, 2]])
        nibabel.freesurfer.write_geometry(tmp_path / "fsaverage" / "surf" / f"{side}.inflated", points, faces)
    (tmp_path / "areas.json").write_text(json.dumps({"areas": ["A1"] * 4, "vertices": [0, 49, 50, 99]}))
    places = encode_voxels.surface_places(tmp_path / "fsaverage", [0, 49, 50, 99])
    assert (places[:2, 0] < 0).all() and (places[2:, 0] > 0).all()
    maps = {"base": rng.normal(size=4), "tuned": rng.normal(size=4)}
    encode_voxels.draw_maps(maps, tmp_path, str(tmp_path / "fsaverage"), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["map.png", "map_gain_1.png"]


def check_llm_targets(folder):
    tokenizer = train_tokenizer(["we go home now", "the dog can see you"] * 20, 300)
    tokenizer.save_pretrained(folder / "lm")
    small = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    model = Qwen2ForCausalLM(Qwen2Config(**small, vocab_size=len(tokenizer), intermediate_size=16)).eval()
    model.save_pretrained(folder / "lm")
    cohort = str(folder / "run" / "cohort")
    names = ["--stories", cohort, "--language_model", str(folder / "lm"), "--layers", "1", "2"]
    assert len(llm_targets.main([*names, "--context", "64"])) == 5
    run, brain = read_run(cohort, "llm", "story000"), read_run(cohort, "S00", "story000")
    assert run.responses.shape == (len(brain.responses), 8) and run.split == brain.split
    words = read_words(cohort, "story000")["word"]
    arguments = llm_targets.TargetArguments(layers=[1, 2], context=4096)
    whole = llm_targets.read_story_aloud(model, tokenizer, words, arguments)
    half = llm_targets.read_story_aloud(model, tokenizer, words[: len(words) // 2], arguments)
    np.testing.assert_allclose(whole[: len(half)], half, atol=1e-4)


def test_words_predict_what_follows_words_and_controls_do_not(tmp_path):
    rng = np.random.default_rng(0)
    words = ["we go", "", "the dog can see you", "no", "they like it here very much indeed"]
    for number in range(4):
        text = rng.choice(words, 120)
        count = np.array([len(t.split()) for t in text], dtype=float)
        delayed = np.concatenate([np.zeros(2), count[:-2]])
        bold = delayed[:, None] + rng.normal(size=(120, 5))
        bold = ((bold - bold.mean(axis=0)) / bold.std(axis=0)).astype(np.float32)
        np.savez(tmp_path / f"P1_train_story{number}.npz", X=bold, text=text)
    result = encode_text.main([
        "--runs", str(tmp_path), "--participant", "P1", "--bands", "rate", "phonemes", "--each_band", "false",
        "--num_permutations", "200", "--output_dir", str(tmp_path / "out"),
    ])  # fmt: skip
    scores = result["scores"]
    assert scores["words"]["significant"] == 5 and scores["words"]["mean_correlation"][0] > 0.5
    for control in ("time_shifted", "permuted"):
        assert scores[control]["significant"] == 0
        assert scores[control]["words_are_better_by"][1] > 0.3


def test_what_cannot_work_is_refused(tmp_path):
    with pytest.raises(ValueError, match="either --stories"):
        brain_tune.main(["--output_dir", str(tmp_path)])
    with pytest.raises(ValueError, match="'shuffled' is unknown"):
        brain_tune.main(["--output_dir", str(tmp_path), "--stories", "x", "--control", "shuffled"])
    with pytest.raises(ValueError, match="at least one"):
        encode_voxels.main(["--stories", "x"])
    with pytest.raises(ValueError, match="nonsense"):
        encode_text.main(["--runs", "x", "--bands", "nonsense"])
