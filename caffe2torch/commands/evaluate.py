"""Retrieval measured as in the papers: MAP, precision at k, and the published figures beside them.

From codes, ours or MATLAB's:

  caffe2torch evaluate --queries test.h5 --database train.h5 --out results/
  caffe2torch evaluate --queries binary-test.mat --query-labels test-label.txt \\
      --database binary-train.mat --database-labels train-label.txt -k 1000 50000

From pictures, which are hashed first. A run that ends early goes on with the same command and --resume:

  caffe2torch evaluate --cifar10 cifar-10-python.tar.gz                  CIFAR-10, the bundled model, one command
  caffe2torch evaluate --cifar10 cifar-10-python.tar.gz --model kevinnet_cifar10_48
  caffe2torch evaluate --images ~/cvprw15 --model kevinnet_cifar10_48    pictures that `caffe2torch cifar10` made
  caffe2torch evaluate --queries test/ --database train/ --folders       your own, one folder for each class

Each query ranks the database by Hamming distance, equal distances in list order. MAP@K is the mean over the queries of
the average precision among the first K, which divides by the right pictures found there, as in the papers. With
`--database test` each query ranks the other queries instead, which training has not seen.

The folder --out gets map.txt and precision-at-k.txt in the format of the papers' scripts, scores.json with everything,
the precision figure, and the codes, which are used again as long as model and pictures are the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "MAP and precision at k, beside the published figures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is measured, how, what is written, and how pictures are hashed."""
    _add_input_arguments(parser.add_argument_group("what is measured"))
    _add_protocol_arguments(parser.add_argument_group("how it is measured"))
    _add_output_arguments(parser.add_argument_group("what is written"))
    _add_matlab_arguments(parser.add_argument_group("MATLAB files that can be understood in more than one way"))
    _add_hashing_arguments(parser)


def _add_input_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--queries",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="a codes file (.h5, .mat, .npz, .csv), or pictures: folders and list files (.txt, .lst, .list)",
    )
    group.add_argument(
        "--database",
        nargs="+",
        metavar="INPUT",
        help="likewise; or the word test: the queries themselves, each left out of its database (test/ is a folder)",
    )
    group.add_argument(
        "--cifar10",
        type=Path,
        metavar="SOURCE",
        help="CIFAR-10's test and training pictures: the official archive (python or binary version), the folder it "
        "unpacks to, or lossless strips",
    )
    group.add_argument(
        "--pictures",
        choices=("lossless", "papers"),
        help="CIFAR-10's pictures as they are, or mirrored and JPEG-coded as the papers' authors had them; default: "
        "papers for the papers' models, lossless for others",
    )
    group.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="a folder with val.txt (queries) and train.txt (database), a path and a label on each line; `caffe2torch "
        "cifar10` builds one",
    )
    group.add_argument("--root", type=Path, metavar="DIR", help="where the paths of list files start")
    group.add_argument(
        "--query-labels",
        type=Path,
        metavar="FILE",
        help="label file, where the codes or lists have no labels: a number on each line, or a path and a number, or "
        "0 and 1 for each of several labels; also .npy and .mat",
    )
    group.add_argument("--database-labels", type=Path, metavar="FILE", help="likewise")
    group.add_argument("--folders", action="store_true", help="the folder a picture lies in is its label")


def _add_protocol_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-k",
        type=int,
        nargs="+",
        metavar="K",
        help="lengths of the rankings; default: 1000, or all where these are fewer",
    )
    group.add_argument("--radius", type=int, default=2, metavar="BITS", help="for the precision within it; default: 2")
    group.add_argument(
        "--divisor",
        default="found",
        choices=("found", "all", "attainable"),
        help="what average precision divides by: the right pictures among the first K (default, the papers'), all of "
        "the database (TREC's), or the smaller of K and all",
    )
    group.add_argument(
        "--ties", action="store_true", help="also MAP over all orders of equal distances: mean and extremes"
    )
    group.add_argument(
        "--any-model",
        action="store_true",
        help="measure even where queries and database were hashed by different models or otherwise",
    )
    group.add_argument(
        "--compare-with",
        metavar="NAME",
        help="the zoo's model whose published figures to stand beside; default: the one that made the codes",
    )


def _add_output_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for the results; default: evaluation for pictures, none for codes",
    )
    group.add_argument(
        "--figure",
        nargs="+",
        default=None,
        choices=("png", "svg", "pdf", "none"),
        help="formats of the precision figure; default: png",
    )
    group.add_argument("--name", metavar="TEXT", help="what to call our curve in the figure; default: the model's name")
    group.add_argument(
        "--force", action="store_true", help="replace results that are there, and codes that were made otherwise"
    )
    group.add_argument("--json", action="store_true", help="print JSON, without the curves")
    group.add_argument("--quiet", action="store_true", help="no progress, no table; warnings and errors only")


def _add_matlab_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--bits", type=int, metavar="N", help="how many bits a code has")
    group.add_argument(
        "--variable", nargs="+", metavar="NAME", help="the matrix with the codes; two names if the files differ"
    )
    group.add_argument(
        "--layout", choices=("columns", "rows"), help="one code per column, as in the papers, or per row"
    )
    group.add_argument(
        "--values", default="codes", choices=("codes", "sigmoid"), help="sigmoid: a bit is set where the value is > 0.5"
    )


def _add_hashing_arguments(parser: argparse.ArgumentParser) -> None:
    from caffe2torch.commands.model_options import add_model_options, add_running_options

    group = parser.add_argument_group("which model hashes pictures")
    add_model_options(group)
    group.add_argument(
        "--accuracy",
        nargs="?",
        const="",
        metavar="BLOB",
        help="also the share of queries whose highest class score is right; BLOB has the scores, by default those of "
        "the model's net with its classifier",
    )
    group = parser.add_argument_group("how pictures are hashed")
    group.add_argument("--resume", action="store_true", help="go on with the unfinished run in --out")
    group.add_argument("--again", action="store_true", help="hash anew even where the codes are in --out")
    add_running_options(group)


def run(args: argparse.Namespace) -> int:
    """Hash where pictures are given, measure, write and print."""
    from caffe2torch.commands.evaluating import evaluate, say_how_to_resume

    try:
        return evaluate(args)
    except KeyboardInterrupt:
        say_how_to_resume(args)
        return 130
