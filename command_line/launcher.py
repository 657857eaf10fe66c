"""Being one of several processes that torchrun, ``lightning run`` or ``fabric run`` started."""

import os
import socket
import sys


def launcher_settings(trainer: dict, environment: dict[str, str]) -> dict:
    """Trainer settings that make this process take its part in a group that torchrun or ``lightning run`` started.

    Without them each process would train alone, as rank 0 of one, without a warning.

    Args:
        trainer: the configured ``accelerator``, ``strategy``, ``precision``, ``devices`` and ``num_nodes``.
        environment: the process environment.

    Returns:
        the settings to change; none where no launcher started this process.
    """
    if "TORCHELASTIC_RUN_ID" not in environment:
        return {}
    local, world = int(environment["LOCAL_WORLD_SIZE"]), int(environment["WORLD_SIZE"])
    listed = environment.get("LT_DEVICES", "")
    strategy = "ddp" if trainer.get("strategy") == "auto" and world > 1 else trainer.get("strategy")
    settings = {
        "devices": listed if "," in listed else local,  # "2,3" names devices, "2" only counts them
        "num_nodes": world // local,
        "accelerator": environment.get("LT_ACCELERATOR") or trainer.get("accelerator"),
        "strategy": environment.get("LT_STRATEGY") or strategy,
        "precision": environment.get("LT_PRECISION") or trainer.get("precision"),
    }
    return {key: value for key, value in settings.items() if value is not None}


def started_by_lightning() -> bool:
    """Whether this is one of the processes that the first one started for ``trainer.devices``."""
    return os.environ.get("LOCAL_RANK", "0") != "0" and not {"TORCHELASTIC_RUN_ID", "SLURM_PROCID"} & os.environ.keys()


def leave_group() -> None:
    """Leave the process group, if there is one: a process that simply ends may abort in a thread of its network."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def end_process(status: int) -> None:
    """Leave with a status; a process of a group at once, without its network's exit, which may wait for ever."""
    from torch import distributed

    sys.stdout.flush()
    sys.stderr.flush()
    if distributed.is_available() and distributed.is_initialized():
        os._exit(status)
    sys.exit(status)


def lost_another(error: Exception) -> bool:
    """Whether an error only says that another process of the group has ended."""
    words = ("Connection closed by peer", "Connection reset by peer", "remote process exited", "Broken pipe")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def lightning() -> None:
    """Console script: ``lightning run [model] [OPTIONS] SCRIPT [ARGS]``.

    lightning itself calls this ``fabric run``; its ``lightning`` command went away in 2.5.1. Other commands go to
    lightning-sdk, whose console script has the same name, if that is installed.
    """
    arguments = sys.argv[1:]
    if arguments[:1] == ["run"]:
        from lightning.fabric.cli import _main

        arguments = arguments[2:] if arguments[1:2] == ["model"] else arguments[1:]
        script = next((i for i, argument in enumerate(arguments) if argument.endswith(".py")), len(arguments))
        ours = ("--main-port", "--main_port", "--num-nodes", "--num_nodes")
        if not any(argument.startswith(ours) for argument in arguments[:script]):
            arguments = ["--main-port", str(free_port()), *arguments]
        return _main(args=["run", *arguments], prog_name="lightning")
    try:
        from lightning_sdk.cli.entrypoint import main_cli
    except ImportError:
        sys.exit("lightning: only `lightning run [model] [OPTIONS] SCRIPT [ARGS]` is provided here")
    return main_cli()


def free_port() -> int:
    """A TCP port that nobody listens on, so that two runs on one machine do not meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
