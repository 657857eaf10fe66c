"""Arguments in, a typed configuration out; what is wrong is said in a line or two."""

import sys

import pytest
import yaml

from command_line.launcher import free_port, launcher_settings, lightning
from command_line.parser import precise
from lightning_modules.instruction_tuning import InstructionTuning
from lightning_modules.training_cli import TrainingCLI


@pytest.fixture
def refused(arguments, tmp_path, capsys):
    """Parse a command line that must be refused; gives the message."""

    def parse(*more: str, stage: int = 2) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            TrainingCLI(arguments(stage, tmp_path / "run", *more))
        assert left.value.code == 2
        message = capsys.readouterr().err
        assert "error: " in message
        assert len(message.splitlines()) <= 4
        assert "usage" not in message
        return message

    return parse


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--model.llmm=x", ["llmm"]),
        ("--modle.llm=x", ["modle.llm"]),
        ("--model.lora.rank=4", ["rank"]),
        ("--model.lora={r: 4, alhpa: 8}", ["alhpa"]),
        ("--model.optimization.learning_rate=1", ["learning_rate"]),
        ("--model.previous_lora=continue", ["previous_lora"]),  # of stage 3 only
        ("--data.batchsize=4", ["batchsize"]),
        ("--data.train=[{shard: a, queries: b}]", ["shard"]),
        ("--data.dialogue=x", ["dialogue"]),  # comes from the model
        ("--trainer.max_epoch=3", ["max_epoch"]),  # abbreviations are off
        ("--trainer.acc=cpu", ["acc"]),
        ("--outpu=x", ["outpu"]),
        ("--checkpoint.dirpath=x", ["dirpath"]),  # comes from the run folder
    ],
)
def test_a_misspelt_key_is_named(refused, argument, words):
    message = refused(argument)
    assert all(word in message for word in words)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--trainer.max_epochs=abc", ["max_epochs", "abc", "int"]),
        ("--model.lora.r=four", ["four", "int"]),
        ("--model.optimization.lr=fast", ["fast", "float"]),
        ("--model.tune_adapter=maybe", ["tune_adapter", "maybe"]),
        ("--data.on_error=ignore", ["on_error", "ignore"]),
        ("--data.batch_size=2.5", ["batch_size", "2.5"]),
        ("--model=NoSuchStage", ["NoSuchStage"]),
        ("--model.localizer=NoSuchLocalizer", ["NoSuchLocalizer"]),
        ("--config=nowhere.yaml", ["nowhere.yaml"]),
        ("--resume=perhaps", ["resume", "perhaps"]),
    ],
)
def test_a_wrong_value_is_named(refused, argument, words):
    message = refused(argument)
    assert all(word in message for word in words), message


def test_a_misspelt_key_of_a_file_is_named(refused, tmp_path):
    (tmp_path / "bad.yaml").write_text("model:\n  init_args:\n    tune_adaptor: true\n")
    assert "tune_adaptor" in refused(f"--config={tmp_path / 'bad.yaml'}")


def test_a_missing_key_is_named(capsys):
    with pytest.raises(SystemExit) as left:
        TrainingCLI(["--model=BoundaryPerception", "--model.llm=x", "--model.localizer=TextTimestamps"])
    assert left.value.code == 2
    assert "output" in capsys.readouterr().err


def test_a_printed_configuration_means_the_same(arguments, tmp_path, capsys):
    more = ["--model.previous_lora=continue", "--model.lora.r=2", "--model.optimization.betas=[0.8, 0.9]"]
    args = arguments(3, tmp_path / "run", *more, previous=tmp_path / "earlier")
    with pytest.raises(SystemExit) as left:
        TrainingCLI([*args, "--print_config"])
    assert left.value.code == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    direct, read = TrainingCLI(args), TrainingCLI([f"--config={tmp_path / 'printed.yaml'}"])
    without = [{k: v for k, v in cli.config.as_dict().items() if k != "config"} for cli in (direct, read)]
    assert without[0] == without[1]
    assert isinstance(read.model, InstructionTuning)
    assert (read.model.lora.r, read.model.lora.alpha, read.model.previous_lora) == (2, 8, "continue")
    assert read.model.optimization.betas == (0.8, 0.9)
    assert read.model.previous == tmp_path / "earlier"
    printed = yaml.safe_load((tmp_path / "printed.yaml").read_text())
    assert printed["model"]["init_args"]["localizer"]["class_path"] == "localizers.TextTimestamps"


def test_later_files_and_arguments_win_key_by_key(arguments, tmp_path):
    (tmp_path / "a.yaml").write_text("data: {batch_size: 3, eval_batch_size: 5}\ntrainer: {max_epochs: 7}\n")
    (tmp_path / "b.yaml").write_text("data: {batch_size: 2}\n")
    files = [f"--config={tmp_path / name}.yaml" for name in "ab"]
    cli = TrainingCLI(["--model.llm=ignored", *arguments(2, tmp_path / "run"), *files, "--trainer.max_epochs=9"])
    assert (cli.datamodule.batch_size, cli.datamodule.eval_batch_size, cli.trainer.max_epochs) == (2, 5, 9)


def test_seed_and_dialogue_reach_the_data(arguments, tmp_path):
    cli = TrainingCLI(arguments(2, tmp_path / "run", "--seed_everything=7"))
    assert cli.datamodule.seed == 7
    assert cli.datamodule.dialogue is cli.model.dialogue
    assert TrainingCLI(arguments(2, tmp_path / "run")).datamodule.seed == 0


@pytest.mark.parametrize("value", ["true", "false"])
def test_a_seed_is_a_number(refused, value):
    """Lightning also takes true and false; then the order of the data would have another seed than the weights."""
    assert "seed_everything" in refused(f"--seed_everything={value}")


PLAIN = {"accelerator": "cpu", "strategy": "auto", "devices": "auto", "num_nodes": 1, "precision": None}
LAUNCHED = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2"}


def test_without_a_launcher_nothing_changes():
    assert launcher_settings(PLAIN, {}) == {}
    assert launcher_settings(PLAIN, {"WORLD_SIZE": "2", "LT_DEVICES": "2"}) == {}


@pytest.mark.parametrize(
    ("trainer", "environment", "changed"),
    [
        ({}, {}, {"devices": 2, "num_nodes": 1, "accelerator": "cpu", "strategy": "ddp"}),
        ({"devices": 8}, {}, {"devices": 2}),
        ({}, {"WORLD_SIZE": "6"}, {"devices": 2, "num_nodes": 3}),
        ({}, {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}, {"devices": 1, "strategy": "auto"}),
        ({"strategy": "fsdp"}, {}, {"strategy": "fsdp"}),
        ({"strategy": "fsdp"}, {"LT_STRATEGY": "ddp"}, {"strategy": "ddp"}),
        ({}, {"LT_DEVICES": "2,3"}, {"devices": "2,3"}),
        ({}, {"LT_DEVICES": "2"}, {"devices": 2}),
        ({}, {"LT_ACCELERATOR": "cuda"}, {"accelerator": "cuda"}),
        ({"precision": "32-true"}, {"LT_PRECISION": "bf16-mixed"}, {"precision": "bf16-mixed"}),
        ({"precision": "16-mixed"}, {}, {"precision": "16-mixed"}),
        ({"strategy": {"class_path": "DDPStrategy"}}, {}, {"strategy": {"class_path": "DDPStrategy"}}),
    ],
)
def test_a_launcher_decides_about_processes(trainer, environment, changed):
    settings = launcher_settings(PLAIN | trainer, LAUNCHED | environment)
    assert settings.items() >= changed.items()
    assert settings.keys() <= PLAIN.keys()
    assert None not in settings.values()


def test_messages_of_workers_keep_their_point():
    """DataLoader puts a traceback in front of what a worker raised."""
    message = (
        "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "worker.py", line 1, in loop\n    data = fetch()\nValueError: a.jsonl, line 3: bad\nMend it'
    )
    assert precise(message) == "a.jsonl, line 3: bad\n  Mend it"
    assert precise("short") == "short"


def test_the_console_script_calls_fabric_run(monkeypatch):
    calls = []
    monkeypatch.setattr("lightning.fabric.cli._main", lambda **settings: calls.append(settings))
    for words in (["run"], ["run", "model"], ["run", "model", "--main-port=5"], ["run", "--num-nodes", "2"]):
        monkeypatch.setattr(sys, "argv", ["lightning", *words, "--devices", "2", "train.py", "--output", "x"])
        lightning()
    rest = ["--devices", "2", "train.py", "--output", "x"]
    for call in calls[:2]:
        assert call["args"][:2] == ["run", "--main-port"]
        assert 1024 < int(call["args"][2]) < 65536
        assert call["args"][3:] == rest
    assert calls[2]["args"] == ["run", "--main-port=5", *rest]
    assert calls[3]["args"] == ["run", "--num-nodes", "2", *rest]
    assert calls[0]["args"][2] != calls[1]["args"][2]  # two runs on one machine do not meet


def test_an_argument_of_the_script_is_not_the_launcher_s(monkeypatch):
    calls = []
    monkeypatch.setattr("lightning.fabric.cli._main", lambda **settings: calls.append(settings["args"]))
    monkeypatch.setattr(sys, "argv", ["lightning", "run", "train.py", "--num-nodes-of-mine", "2"])
    lightning()
    assert calls[0][1] == "--main-port"


def test_other_commands_are_not_ours(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lightning", "login"])
    monkeypatch.setitem(sys.modules, "lightning_sdk", None)
    with pytest.raises(SystemExit, match="only `lightning run"):
        lightning()


def test_a_free_port_is_a_port():
    assert 1024 < free_port() < 65536
