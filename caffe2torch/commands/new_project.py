"""A hashing model for pictures of your own, in one command and a training.

  caffe2torch new-project birds --images photos/                  a folder in photos/ for each class
  caffe2torch new-project birds --images list.txt --bits 32       a list: a path and a label on each line
  caffe2torch new-project tags --images tags.txt --base ssdh      several labels: a path, then 0 or 1 for each label
  caffe2torch new-project birds --images train/ --test-images val/

The folder gets lists to train and to test with, the mean, nets and solver in Caffe's files, and project.toml, which
makes the trained model one that `extract`, `evaluate` and `search` take by name: --model birds. Every picture is
opened once, so that one that cannot be read shows now and not in the middle of the training.

  ssdh_small   32 x 32 pixels, learns from nothing in minutes, without a GPU
  ssdh         the papers' SSDH on AlexNet, fine-tuned from ImageNet weights (caffe2torch download caffenet)
  kevinnet     the papers' KevinNet, likewise
  ssdh_vgg16   SSDH on VGG-16, fine-tuned from the ImageNet weights of its authors; needs a GPU
"""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caffe2torch.commands.progress import Bar

if TYPE_CHECKING:
    from caffe2torch.project.make import Project

HELP = "lists, mean, nets and solver to train a model for your own pictures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The pictures, the model, the training."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder to make; its name is the model's")
    group = parser.add_argument_group("which pictures")
    group.add_argument(
        "--images", type=Path, required=True, metavar="FOLDER|LIST", help="a folder of class folders, or a list file"
    )
    group.add_argument(
        "--root", type=Path, metavar="DIR", help="where the paths of a list start; default: where the list lies"
    )
    group.add_argument(
        "--test-images", type=Path, metavar="FOLDER|LIST", help="pictures to test with, none of --images"
    )
    group.add_argument(
        "--test-share", type=float, default=0.1, metavar="X", help="else this share of each class; default: 0.1"
    )
    group.add_argument("--skip-bad", action="store_true", help="leave out pictures that cannot be read")
    group.add_argument("--no-check", action="store_true", help="do not open every picture first")
    group = parser.add_argument_group("which model")
    group.add_argument("--bits", type=int, default=48, metavar="N", help="length of the code; default: 48")
    group.add_argument(
        "--base", default="ssdh_small", metavar="NAME", help="ssdh_small (default), ssdh, kevinnet or ssdh_vgg16"
    )
    group.add_argument(
        "--mean", type=Path, metavar="FILE", help="a mean image (256 x 256) in place of your pictures' own"
    )
    group = parser.add_argument_group("how it is trained")
    group.add_argument("--epochs", type=float, metavar="X", help="how often each picture is seen; default: by the base")
    group.add_argument("--batch-size", type=int, metavar="N", help="pictures in an iteration; default: by the base")
    group.add_argument(
        "--seed", type=int, default=1, metavar="N", help="for the split and all that is random in training; default: 1"
    )
    parser.add_argument("--force", action="store_true", help="replace the files of a project that is there")
    parser.add_argument("--json", action="store_true", help="print what was made as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Make the project and say what to do next."""
    from caffe2torch.errors import UsageError
    from caffe2torch.project.make import Wishes, make_project

    if not 0 <= args.seed < 1 << 31:
        raise UsageError(f"--seed {args.seed}: expected 0 to {(1 << 31) - 1}")
    wishes = Wishes(
        args.folder,
        args.images,
        bits=args.bits,
        base=args.base,
        root=args.root,
        test_images=args.test_images,
        test_share=args.test_share,
        seed=args.seed,
        epochs=args.epochs,
        batch=args.batch_size,
        mean=args.mean,
        check=not args.no_check,
        skip_bad=args.skip_bad,
        force=args.force,
    )
    bar = Bar()

    def looked(done: int, total: int) -> None:
        if not (args.quiet or args.json):
            if done == 1:
                bar.open("checking", "pictures", 0, total)
            bar.update(done)

    try:
        project = make_project(wishes, looked)
    finally:
        bar.close()
    commands = next_commands(project, args.images, args.root)
    if args.json:
        print(json.dumps(to_dict(project, commands)))
    else:
        print(report(project, commands))
    return 0


def to_dict(project: Project, commands: dict[str, str]) -> dict[str, Any]:
    """What was made, for programs."""
    return {
        "folder": str(project.folder),
        "name": project.name,
        "base": project.base.name,
        "bits": project.bits,
        "classes": list(project.train.classes),
        "several_labels": project.train.several,
        "train": len(project.train),
        "test": len(project.test),
        "iterations": project.plan.max_iter,
        "notes": project.notes,
        "next": commands,
    }


def report(project: Project, commands: dict[str, str]) -> str:
    """What was made, what one should know, and the next commands."""
    train, plan = project.train, project.plan
    counts = project.counts
    kind = "labels" if train.several else "classes"
    sizes = f"{counts.min():,}" if counts.min() == counts.max() else f"{counts.min():,} to {counts.max():,}"
    named = ", ".join(train.classes[:8]) + (", ..." if len(train.classes) > 8 else "")
    lines = [
        f"{project.folder}: {project.base.method}, {project.bits} bits, {len(train.classes)} {kind} ({named})",
        f"{len(train):,} pictures to train with ({sizes} of each), {len(project.test):,} to test with",
        f"{plan.max_iter:,} iterations of {plan.batch} pictures: each is seen {plan.epochs:.4g} times",
    ]
    lines += [f"note: {note}" for note in project.notes]
    lines += [f"\n{title}:\n  {command}" for title, command in commands.items()]
    return "\n".join(lines)


def next_commands(project: Project, images: Path, root: Path | None) -> dict[str, str]:
    """Title and command of each step that follows."""
    folder = project.folder
    start = [] if not project.train.root else ["--root", str(root or (images if images.is_dir() else images.parent))]
    lists = ["--queries", folder / "test.txt", "--database", folder / "train.txt", *start]
    if project.train.several:
        lists += ["--query-labels", folder / "test_labels.txt", "--database-labels", folder / "train_labels.txt"]
    else:
        lists += ["--accuracy"]
    commands = {}
    weights, fetch = _weights(project)
    if fetch:
        commands["first get the ImageNet weights to start from"] = fetch
    train = ["train", "--solver", folder / "solver.prototxt", *(["--weights", weights] if weights else [])]
    if Path("train_val.prototxt").exists() and folder.resolve() != Path().resolve():
        train += ["--root", folder]  # or else the one that lies here would be trained
    commands["train (Ctrl-C keeps what is done; --precision bf16 is faster where the processor has it)"] = _line(*train)
    commands["see how it went"] = _line("plot-log", folder / f"{project.name}.log", "-o", folder / "curves.png")
    model = ["--model", folder]
    commands["measure it"] = _line("evaluate", *model, *lists, "--out", folder / "evaluation")
    codes = folder / "codes.h5"
    listed = "train_pictures.txt" if project.train.several else "train.txt"
    commands["hash the pictures that are searched"] = _line("extract", folder / listed, *start, *model, "--out", codes)
    commands["search them"] = _line("search", codes, "PICTURE", "--html", folder / "results.html", *start)
    return commands


def _weights(project: Project) -> tuple[Path | None, str]:
    """The file to fine-tune from, and how to get it where it is not here."""
    from caffe2torch import zoo

    base = project.base
    if base.weights:
        file = zoo.entry(base.weights).weights
        if zoo.is_here(file):
            return zoo.find_file(file), ""
        return zoo.download_folder() / file.name, _line("download", base.weights)
    if base.weights_file:
        return Path(base.weights_file), f"{base.weights_file}, from {base.weights_from}"
    return None, ""


def _line(*words: object) -> str:
    return shlex.join(["caffe2torch", *map(str, words)])
