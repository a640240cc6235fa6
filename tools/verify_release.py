"""Do released weights give, here, the codes and the MAP that were published with them? And if not, why?

  python tools/verify_release.py --model kevinnet_cifar10_48 --cifar10 cifar-10-python.tar.gz
  python tools/verify_release.py --model kevinnet_cifar10_48 --images cvprw15/     pictures of tools/make_cifar10.py
  python tools/verify_release.py --model ssdh48_small --cifar10 ...                the bundled model, as a rehearsal

What you need: the weights (`caffe2torch download kevinnet_cifar10_48` fetches them or says where they are), CIFAR-10
(the official archive, or the folders tools/make_cifar10.py builds from it), and the released codes
(`python tools/fetch_reference.py FOLDER` fetches them; then give --reference FOLDER).

What happens: all 60,000 pictures are hashed in the order of the papers' lists, with KevinNet about a quarter of an hour
on two processor cores; it can be interrupted, the same command goes on. The codes are compared bit by bit with the
released ones, and MAP with the figures of the README. Each comparison gets a verdict: it agrees, agrees but for
rounding (all bits that differ stem from outputs within 0.0001 of the threshold: another order of the same sums), or
DIFFERS.

When codes differ, the cause is looked for by trial: some hundred pictures are hashed again with the mean image
transposed, averaged, left out or replaced, with other crops, with other rules of resizing, with R, G, B instead of
B, G, R, unmirrored, with more or less JPEG, in reduced precision, with other weights that are here. The change under
which the codes agree is named, with what usually leads to it.

Try it out with a mistake made on purpose, and see it named (first 500 pictures of each list):

  python tools/verify_release.py --model ssdh48_small --cifar10 ... --limit 500 --set mean_values=104,117,123

Exit status: 0 when everything agrees (or agrees but for rounding, unless --exact), 1 when anything differs or could not
be read, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caffe2torch import zoo
from caffe2torch.errors import Caffe2TorchError, UsageError


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="verify_release.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = made.add_argument_group("what is verified")
    what.add_argument("--model", metavar="NAME", help="a model of the zoo (`caffe2torch zoo`)")
    what.add_argument("--net", metavar="FILE", help="a deploy prototxt of your own, with --weights and --set")
    what.add_argument(
        "--weights", metavar="FILE", help="the caffemodel; default: the zoo's, where it is on this machine"
    )
    what.add_argument("--mean", metavar="FILE", help="another mean image: .mat, .npy or .binaryproto")
    what.add_argument("--mean-layout", choices=("hwc", "whc"), help="subtract the mean image upright or transposed")
    what.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="preprocessing other than the model's: dialect, resize, crop, crop_offset, mean_values, scale, order",
    )
    where = made.add_argument_group("the pictures (one of the two; with both, CIFAR-10 serves the search for a cause)")
    where.add_argument("--images", type=Path, metavar="ROOT", help="what tools/make_cifar10.py built")
    where.add_argument(
        "--cifar10",
        type=Path,
        metavar="PATH",
        help="cifar-10-python.tar.gz, its folder, or the lossless strips; each picture is mirrored and coded as JPEG "
        "in memory, giving the very pixels of the papers' files",
    )
    where.add_argument("--jpeg", type=int, choices=range(4), help="passes through JPEG; default: as the release, 2")
    where.add_argument(
        "--mirrored", choices=("yes", "no"), help="left-right; default: as the release, yes in the papers"
    )
    codes = made.add_argument_group("the released codes")
    codes.add_argument(
        "--reference",
        type=Path,
        metavar="DIR",
        help="folder of tools/fetch_reference.py; default: $CAFFE2TORCH_REFERENCE, or ../shared beside the checkout",
    )
    codes.add_argument(
        "--codes",
        nargs=2,
        metavar=("TRAIN", "TEST"),
        help="codes files to compare with instead: .mat, .h5, .npz, .csv, an .npy array, or FILE.npz#NAME",
    )
    codes.add_argument("--order", choices=("papers", "standard"), help="order of these codes; default: as the release")
    how = made.add_argument_group("how it runs")
    how.add_argument("--out", type=Path, metavar="DIR", help="where codes are kept; default: verify-MODEL")
    how.add_argument("--force", action="store_true", help="make all codes anew, also those that are in --out already")
    how.add_argument("--limit", type=int, metavar="N", help="only the first N pictures of each list; no MAP then")
    how.add_argument(
        "--trial",
        type=int,
        default=300,
        metavar="N",
        help="pictures for the search for a cause; default: 300, 0 for none",
    )
    how.add_argument("--exact", action="store_true", help="exit 1 also where bits differ by rounding only")
    how.add_argument("--device", default="auto", metavar="DEV", help="auto, cpu, cuda or cuda:N")
    how.add_argument("--precision", default="float32", choices=("float32", "bf16", "fp16"), help="default: float32")
    how.add_argument("--workers", type=int, metavar="N", help="threads that prepare pictures; default: one per core")
    how.add_argument("--json", action="store_true", help="print the findings as JSON")
    how.add_argument("--quiet", action="store_true", help="no progress")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify and print; 0 when all agrees, 1 when anything differs, 2 for wrong usage."""
    args = parser().parse_args(arguments)
    try:
        return run(args)
    except Caffe2TorchError as error:
        print(f"verify_release: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("verify_release: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def run(args: argparse.Namespace) -> int:
    """Put the job together and do it."""
    from caffe2torch.release import report
    from caffe2torch.release.verify import verify

    with Progress(quiet=args.quiet) as progress:
        result = verify(job(args, progress))
    print(json.dumps(report.to_dict(result, exact=args.exact)) if args.json else report.text(result, exact=args.exact))
    return 0 if result.agrees(exact=args.exact) else 1


def job(args: argparse.Namespace, progress: Progress) -> Any:
    """What was asked for."""
    from caffe2torch.cores import cores
    from caffe2torch.release import choosing
    from caffe2torch.release.verify import Job

    if args.model and args.net:
        raise UsageError("--model and --net both name a net: give one of them")
    name = args.model or (Path(args.net).stem if args.net else zoo.default_name())
    model = choosing.model(
        None if args.net else name,
        net=args.net,
        weights=args.weights,
        mean=args.mean,
        mean_layout=args.mean_layout,
        settings=args.set,
    )
    release = choosing.release(name, explicit=args.codes is not None)
    if args.order:
        release = replace(release, order=args.order)
    root = choosing.reference_folder(args.reference)
    return Job(
        model=model,
        release=release,
        pictures=choosing.pictures(
            release,
            images=args.images,
            cifar10=args.cifar10,
            jpeg=args.jpeg,
            mirrored=args.mirrored and args.mirrored == "yes",
        ),
        codes=choosing.codes(release, root, dict(zip(("train", "test"), args.codes or (), strict=False))),
        others=choosing.others(release, root),
        out=args.out or Path(f"verify-{name}"),
        limit=args.limit,
        force=args.force,
        trial=max(args.trial, 0),
        device=args.device,
        precision=args.precision,
        workers=args.workers or cores(),
        progress=progress,
        say=lambda message: print(f"verify_release: {message}", file=sys.stderr),
    )


class Progress:
    """A bar for each stage on stderr, where that is a terminal; else nothing."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet, self.stage, self.bar = quiet, "", None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if stage != self.stage:
            self.__exit__()
            self.stage = stage
            self.bar = tqdm(
                desc=stage, total=total, initial=done, disable=self.quiet or None, dynamic_ncols=True, smoothing=0.05
            )
        assert self.bar is not None
        self.bar.update(done - self.bar.n)


if __name__ == "__main__":
    raise SystemExit(main())
