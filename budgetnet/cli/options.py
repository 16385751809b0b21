"""Arguments and options shared by several commands; `parsing` reads their texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from budgetnet.cli.completion import completing
from budgetnet.runs.named_recipes import NAMED

_SPEC_HELP = "A name from `budgetnet specs`, a YAML or JSON file, or a run: its folder, `best` or `STUDY#3`."
SpecArgument = Annotated[
    str,
    typer.Argument(metavar="SPEC", autocompletion=completing("SPEC"), help=_SPEC_HELP),
]
OptionalSpec = Annotated[
    str | None,
    typer.Argument(metavar="SPEC", autocompletion=completing("SPEC"), help=_SPEC_HELP, show_default=False),
]
MaxParams = Annotated[
    str | None, typer.Option("--max-params", metavar="N", help="Maximum number of parameters, frozen ones included.")
]
MaxMacs = Annotated[
    str | None, typer.Option("--max-macs", metavar="N", help="Maximum number of multiply-accumulates (MACs) per image.")
]
MaxActivations = Annotated[
    str | None,
    typer.Option("--max-activations", metavar="N", help="Maximum number of output elements of convolutions per image."),
]
MaxWeights = Annotated[
    str | None,
    typer.Option(
        "--max-weights", metavar="SIZE", help="Maximum bytes of the deployed network's weights, such as 512K (of 1024)."
    ),
]
WeightPrecision = Annotated[
    str,
    typer.Option(
        "--weight-precision",
        metavar="float32|float16|int8",
        autocompletion=completing("float32|float16|int8"),
        help="Precision that --max-weights counts weights in.",
    ),
]
MaxPeakMemory = Annotated[
    str | None,
    typer.Option(
        "--max-peak-memory",
        metavar="SIZE",
        help="Maximum bytes of the deployed network's maps at once, for one image, such as 1M (of 1024 K).",
    ),
]
MaxLatency = Annotated[
    str | None,
    typer.Option(
        "--max-latency",
        metavar="TIME",
        help="Longest time of the deployed network on the device of --device-file, such as 2ms or 0.5ms.",
    ),
]
DeviceFileOption = Annotated[
    str | None,
    typer.Option(
        "--device-file",
        metavar="FILE",
        help="File of the device that the network is deployed on, from `budgetnet device measure`.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show every epoch.")]
SpaceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SPACE",
        autocompletion=completing("SPACE"),
        help="Search space: resnet, paper, mobile, regnet, or a YAML or JSON file.",
    ),
]
InputShape = Annotated[
    str | None,
    typer.Option(
        "--input-shape",
        metavar="C,H,W",
        help="Image shape: channels, height and width in pixels. Default: 3,32,32.",
    ),
]
Classes = Annotated[str | None, typer.Option("--classes", metavar="N", help="Number of classes. Default: 10.")]
ImagesOf = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        autocompletion=completing("DATA"),
        help="Data set whose image shape and number of classes are used, as in `budgetnet train`.",
    ),
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="DATA",
        autocompletion=completing("DATA"),
        help="Data set: digits, cifar10, cifar100, mnist, fashion-mnist, kmnist, svhn, stl10, NAME:PATH for one of "
        "these in a folder, folder:PATH (folder:PATH,size=32 scales pictures) or arrays:PATH.npz.",
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="RECIPE",
        autocompletion=completing("RECIPE"),
        help=f"Recipe: {', '.join(NAMED)}, or a YAML or JSON file. Default: digits for the digits, else paper.",
    ),
]
Epochs = Annotated[
    str | None,
    typer.Option(
        "--epochs",
        metavar="N",
        help="Number of epochs, overriding the recipe's; the schedule is stretched to end with the last one.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Random seed.")]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cuda|mps|cpu",
        autocompletion=completing("auto|cuda|mps|cpu"),
        help="Device to compute on.",
    ),
]
Threads = Annotated[
    str | None,
    typer.Option(
        "--threads",
        metavar="N|auto",
        help="Number of CPU threads of torch; auto: time a few steps to choose one or all. Default: one per free core.",
    ),
]
TrainSize = Annotated[
    str | None, typer.Option("--train-size", metavar="N", help="Number of training images to use. Default: all.")
]
ValidationSize = Annotated[
    str | None,
    typer.Option("--validation-size", metavar="N", help="Number of held-out images to validate on. Default: all."),
]
Out = Annotated[Path, typer.Option("--out", help="Folder for run folders and the study's SQLite file.")]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage", metavar="URL", help="Storage of studies, as any SQLAlchemy URL. Default: an SQLite file in OUT."
    ),
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="TRACKER",
        help="Tracker: tensorboard[:FOLDER] or mlflow[:URI]; may be repeated. Default location: OUT.",
    ),
]
RunArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        autocompletion=completing("RUN"),
        help="A run folder, or best, #3 or STUDY#3.",
        show_default=False,
    ),
]
RunsArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN", autocompletion=completing("RUN"), help="Run folders, or best, #3 or STUDY#3.", show_default=False
    ),
]
On = Annotated[
    str,
    typer.Option(
        "--on",
        metavar="PART",
        help="Images to evaluate on: validation, or test (recorded in the log of test set uses).",
    ),
]
OtherData = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="New location of the runs' data set; with --on test also another data set with the same classes.",
    ),
]
OwnData = Annotated[
    str | None, typer.Option("--data", metavar="DATA", help="New location of the run's data set, if it was moved.")
]
TestTimeAugmentation = Annotated[
    str,
    typer.Option(
        "--tta",
        metavar="HOW",
        help="Test-time augmentation: none, flip, flip-and-shifts, or recipe for the recipe's own.",
    ),
]


def print_json(value: Any) -> None:
    """Print plain data as indented JSON."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))
