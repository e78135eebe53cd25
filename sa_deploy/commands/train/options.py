"""Options of a training, which ``train`` and ``ablate`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

RECIPE, RUN = "What is learnt", "Where and how fast"

RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME",
        rich_help_panel=RECIPE,
        help="Recipe to train by: sa, paper, authors, strong, hour, hour-256, osnet, cpu, tiny, "
        "ablation-..., cifar100-gap or cifar100-sa; sa by default, hour within a "
        "--time-budget on a processor.",
    ),
]
Arch = Annotated[
    str | None,
    typer.Option(
        "--arch",
        metavar="NAME",
        rich_help_panel=RECIPE,
        help="Backbone: resnet50, a name of torchvision or timm such as mobilenet_v2 or "
        "timm:NAME, or package.module:function; the recipe's by default{sa_deploy.backbones}.",
    ),
]
Height = Annotated[
    int | None,
    typer.Option(
        "--height",
        metavar="PIXELS",
        rich_help_panel=RECIPE,
        help="Height of the network's input in pixels; the recipe's by default.",
    ),
]
Width = Annotated[
    int | None,
    typer.Option(
        "--width",
        metavar="PIXELS",
        rich_help_panel=RECIPE,
        help="Width of the network's input in pixels; the recipe's by default.",
    ),
]
Features = Annotated[
    int | None,
    typer.Option(
        "--features",
        "--feature",
        metavar="N",
        rich_help_panel=RECIPE,
        help="Channels that each part is reduced to; the recipe's by default.",
    ),
]
Dropout = Annotated[
    float | None,
    typer.Option(
        "--dropout",
        metavar="P",
        rich_help_panel=RECIPE,
        help="Probability that a feature is dropped before a classifier, from 0 to 1; the recipe's "
        "by default.",
    ),
]
Attention = Annotated[
    Literal["stages", "backbone", "both", "none"] | None,
    typer.Option(
        "--attention",
        rich_help_panel=RECIPE,
        help="Where spatial attention weighs the map; the recipe's by default.",
    ),
]
Pretrained = Annotated[
    str | None,
    typer.Option(
        "--pretrained",
        metavar="START",
        rich_help_panel=RECIPE,
        help="Weights that the backbone starts from: imagenet, none, or a file under the names "
        "of torchvision, timm or torchreid; the recipe's by default.",
    ),
]
Teacher = Annotated[
    Path | None,
    typer.Option(
        "--teacher",
        metavar="CHECKPOINT",
        rich_help_panel=RECIPE,
        help="Trained network whose vectors are learnt beside the identities; by default the "
        "identities alone.",
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        min=1,
        metavar="EPOCHS",
        rich_help_panel=RECIPE,
        help="Passes over the training images; the recipe's by default.",
    ),
]
TimeBudget = Annotated[
    str | None,
    typer.Option(
        "--time-budget",
        metavar="TIME",
        rich_help_panel=RECIPE,
        help="Train for a time such as 90s, 60m or 1h, evaluation aside, however fast this machine "
        "is; by default for the epochs of the recipe.",
    ),
]
TrainingBatch = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        min=2,
        metavar="IMAGES",
        rich_help_panel=RECIPE,
        help="Images of a step in each process; the recipe's by default.",
    ),
]
Lr = Annotated[
    float | None,
    typer.Option(
        "--lr",
        metavar="RATE",
        rich_help_panel=RECIPE,
        help="Learning rate of everything but the backbone; the recipe's by default.",
    ),
]
Momentum = Annotated[
    float | None,
    typer.Option(
        "--momentum",
        metavar="NUMBER",
        rich_help_panel=RECIPE,
        help="Momentum of SGD, from 0 to 1; the recipe's by default.",
    ),
]
WeightDecay = Annotated[
    float | None,
    typer.Option(
        "--weight-decay",
        metavar="NUMBER",
        rich_help_panel=RECIPE,
        help="Weight decay of every parameter; the recipe's by default.",
    ),
]
StepSize = Annotated[
    int | None,
    typer.Option(
        "--step-size",
        metavar="EPOCHS",
        rich_help_panel=RECIPE,
        help="Epochs after which the learning rate falls to a tenth; the recipe's by default.",
    ),
]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        rich_help_panel=RECIPE,
        help="Set any field of the recipe, or of its network as network.FIELD; may be repeated.",
    ),
]
HoldOut = Annotated[
    float,
    typer.Option(
        "--hold-out",
        metavar="FRACTION",
        rich_help_panel=RECIPE,
        help="Fraction of the training people that the best epoch is picked by; they are not "
        "trained on.",
    ),
]
CombineTrainval = Annotated[
    bool,
    typer.Option(
        "--combine-trainval",
        rich_help_panel=RECIPE,
        help="Accepted as in the authors' command lines; all people are trained on without it too.",
    ),
]
SplitIndex = Annotated[
    int | None,
    typer.Option(
        "--split",
        metavar="N",
        rich_help_panel=RECIPE,
        help="Accepted as in the authors' command lines; the result is the same without it.",
    ),
]
TrainingSeed = Annotated[
    int,
    typer.Option(
        "--seed",
        metavar="N",
        rich_help_panel=RECIPE,
        help="Seed of the first weights, the order of the images and their augmentation.",
    ),
]
Resume = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        metavar="PATH",
        rich_help_panel=RUN,
        help="Checkpoint to go on from, or the folder of its run; by default a run starts from "
        "the beginning.",
    ),
]
Evaluate = Annotated[
    bool,
    typer.Option(
        "--evaluate", rich_help_panel=RUN, help="Only evaluate the checkpoint that --resume names."
    ),
]
Qat = Annotated[
    bool,
    typer.Option(
        "--qat",
        rich_help_panel=RUN,
        help="Fine-tune the checkpoint that --resume names for int8.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", rich_help_panel=RUN, help="Say what would be trained, and train nothing."
    ),
]
MaxSteps = Annotated[
    int | None,
    typer.Option(
        "--max-steps",
        min=1,
        metavar="STEPS",
        rich_help_panel=RUN,
        help="Stop after this many steps, without a test; by default all epochs are trained.",
    ),
]
EvaluateEvery = Annotated[
    int,
    typer.Option(
        "--evaluate-every",
        min=0,
        metavar="EPOCHS",
        rich_help_panel=RUN,
        help="Epochs between two evaluations, which pick best.pt; 0 evaluates at the end only.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        metavar="PROCESSES",
        rich_help_panel=RUN,
        help="Processes that decode images; by default none beside a processor, and one for each "
        "core, at most 8, beside a GPU.",
    ),
]
TorchDevice = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="NAME",
        rich_help_panel=RUN,
        help="Device that PyTorch computes on: cpu, cuda or cuda:N; auto takes a GPU if there is "
        "one.",
    ),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option(
        "--precision",
        rich_help_panel=RUN,
        help="Precision of the computation; auto takes bf16 where the hardware has it.",
    ),
]
Compile = Annotated[
    bool,
    typer.Option("--compile", rich_help_panel=RUN, help="Compile the network by torch.compile."),
]
Accumulate = Annotated[
    int,
    typer.Option(
        "--accumulate",
        min=1,
        metavar="CHUNKS",
        rich_help_panel=RUN,
        help="Chunks that each batch is split into, to save memory.",
    ),
]
CheckpointSteps = Annotated[
    int,
    typer.Option(
        "--checkpoint-steps",
        min=0,
        metavar="STEPS",
        rich_help_panel=RUN,
        help="Steps after which a checkpoint is written within an epoch; 0 goes by time alone.",
    ),
]
CheckpointSeconds = Annotated[
    float,
    typer.Option(
        "--checkpoint-seconds",
        min=0,
        metavar="SECONDS",
        rich_help_panel=RUN,
        help="Age of the last checkpoint at which another is written within an epoch; 0 writes "
        "none by time.",
    ),
]
PrintFreq = Annotated[
    int,
    typer.Option(
        "--print-freq",
        min=1,
        metavar="STEPS",
        rich_help_panel=RUN,
        help="Steps between two rows of steps.csv.",
    ),
]
Tensorboard = Annotated[
    bool,
    typer.Option(
        "--tensorboard",
        rich_help_panel=RUN,
        help="Write events for TensorBoard into the folder of the run.",
    ),
]
