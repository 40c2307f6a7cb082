"""Settings: the file, the flags on top, and an error for everything else."""

import dataclasses

import pytest

from bit_speech.arguments import ExperimentParser, dump_config, load_config


@dataclasses.dataclass
class Settings:
    learning_rate: float = 1e-3
    steps: int = 10
    name: str = "run"
    bold: bool = False
    patience: int | None = 3
    sessions: list[str] = dataclasses.field(default_factory=list)
    options: dict[str, int] | str | None = None
    hub_token: str | None = None


@pytest.fixture
def parse(tmp_path):
    def run(text, *flags):
        file = tmp_path / "config.yaml"
        file.write_text(text)
        parser = ExperimentParser([Settings], description="A run.", example="run.py --steps 3", highlights=["steps"])
        return parser.parse([f"--config={file}", *flags])[0], parser

    return run


@pytest.mark.parametrize(
    ("text", "value"), [("1e-4", 1e-4), ("5E+2", 500.0), ("1.", 1.0), (".5", 0.5), ("-2e-1", -0.2), ("7", 7.0)]
)
def test_what_looks_like_a_number_is_one(parse, text, value):
    settings, _ = parse(f"learning_rate: {text}")
    assert settings.learning_rate == value and isinstance(settings.learning_rate, float)


def test_dates_no_and_on_stay_text_and_digits_are_decimal(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("a: no\nb: 2023-08-11\nc: 010\nd: 1:30\ne: on\nf: true\ng:\nh: 1.5e3\n")
    assert load_config(file) == {
        "a": "no",
        "b": "2023-08-11",
        "c": 10,
        "d": "1:30",
        "e": "on",
        "f": True,
        "g": None,
        "h": 1500.0,
    }


def test_flags_beat_the_file_and_the_file_beats_the_default(parse):
    settings, _ = parse(
        "steps: 20\nlearning_rate: 2e-3\nbold: true\nsessions: [a, b]", "--steps", "30", "--sessions", "c"
    )
    assert (settings.steps, settings.learning_rate, settings.bold, settings.sessions) == (30, 2e-3, True, ["c"])
    assert settings.name == "run"


def test_nothing_in_the_file_means_none_also_where_the_default_is_something(parse):
    assert parse("patience:")[0].patience is None
    assert parse("patience: null", "--patience=5")[0].patience == 5


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("learning_rat: 1", (), "learning_rat .*did you mean learning_rate"),
        ("steps: 1", ("--stepps", "3"), "--stepps in the command line: did you mean --steps"),
        ("qqqq: 1", (), "no setting has a similar name"),
        ("steps: many", (), "steps.*many"),
        ("steps: 1\nsteps: 2", (), "more than once"),
        ("[1, 2]", (), "list"),
        ("a: [", (), "not valid YAML"),
        ("steps: 1", ("3",), "'3' belongs to no flag"),
    ],
)
def test_what_is_no_setting_is_refused_and_the_message_helps(parse, text, flags, message):
    with pytest.raises(ValueError, match=message):
        parse(text, *flags)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.yaml"):
        ExperimentParser([Settings]).parse([f"--config={tmp_path / 'gone.yaml'}"])


def test_a_setting_without_a_default_must_be_given(tmp_path):
    @dataclasses.dataclass
    class Needy:
        output_dir: str

    with pytest.raises(ValueError, match="output_dir must be given"):
        ExperimentParser([Needy]).parse([])
    file = tmp_path / "c.yaml"
    file.write_text("output_dir: here")
    assert ExperimentParser([Needy]).parse([f"--config={file}"]) == (Needy("here"),)


def test_saved_settings_give_the_same_settings_back_without_tokens(parse, tmp_path):
    settings, parser = parse(
        "learning_rate: 1e-4\nname: '1e-4'\noptions: {a: 1}\npatience:\nhub_token: secret", "--sessions", "no"
    )
    saved = parser.save(tmp_path / "saved.yaml")
    assert "secret" not in saved.read_text()
    (again,) = ExperimentParser([Settings]).parse([f"--config={saved}"])
    assert dataclasses.replace(again, hub_token="secret") == settings
    assert again.name == "1e-4" and again.learning_rate == 1e-4


def test_written_settings_are_read_back_equal(tmp_path):
    values = {
        "a": 1e-5,
        "b": "no",
        "c": "1e-4",
        "d": None,
        "e": True,
        "f": [1, "2", 3.0],
        "g": {"h": "2023-01-01"},
        "i": "true",
    }
    file = tmp_path / "c.yaml"
    file.write_text(dump_config(values))
    assert load_config(file) == values


def test_help_explains_the_chosen_settings_and_help_all_every_one(capsys):
    parser = ExperimentParser([Settings], description="A run.", example="run.py --steps 3", highlights=["steps"])
    for flag, others in (("--help", False), ("--help_all", True)):
        with pytest.raises(SystemExit):
            parser.parse([flag])
        text = capsys.readouterr().out
        assert "A run." in text and "--steps" in text and "run.py --steps 3" in text
        assert ("--patience" in text) == others
