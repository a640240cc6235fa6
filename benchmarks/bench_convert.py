"""Converting a caffemodel of KevinNet's size (228 MB) to source and safetensors, and the other forms.

Every measurement is a process of its own, after its imports; the file is in the page cache. Time is from opening the
caffemodel to the last written file, hashes included and checks left out, which are reported beside it; memory is the
peak of the resident set above the same process before, as a multiple of the weights. The first line copies the same
bytes into a new file.

Run: ``python benchmarks/bench_convert.py [--repeats 3] [--forms]``. Targets: 5 s and 1.5 x the weights for source and
safetensors.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_load import make_file

_PROGRAM = """
import json, sys, time
from pathlib import Path
import torch
from caffe2torch import zoo
from caffe2torch.export import Settings, convert
from caffe2torch.export.models import from_files
weights, folder, forms, check = sys.argv[1], sys.argv[2], tuple(sys.argv[3].split(",")), sys.argv[4] == "check"

def status(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))

net = zoo.entry("kevinnet_cifar10_48").deploy
start_memory, start = status("VmRSS"), time.perf_counter()
model = from_files(net, weights, ignore_extra=True)
result = convert(model.load(), folder, settings=Settings(forms, check=check), origins=model.origins())
seconds, peak = time.perf_counter() - start, status("VmHWM") - start_memory
checks = sum({id(f.check): f.check.seconds for f in result.files if f.check}.values())
equal = [f.check and f.check.equal for f in result.files]
print(json.dumps({"seconds": seconds, "bytes": peak, "checks": checks, "equal": equal}))
"""

_RAW = """
import json, shutil, sys, time
start = time.perf_counter()
with open(sys.argv[1], "rb") as source, open(sys.argv[2], "wb") as target:
    target.write(source.read())
print(json.dumps({"seconds": time.perf_counter() - start}))
"""


def measure(program: str, *arguments: str) -> dict[str, float]:
    """What a program of its own reports."""
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--forms", action="store_true", help="measure pt, pt2 and onnx too")
    args = parser.parse_args()
    forms = ["source,safetensors"] + (["pt", "pt2", "onnx"] if args.forms else [])
    with tempfile.TemporaryDirectory() as temporary:
        weights = Path(temporary) / "kevinnet.caffemodel"
        make_file(weights, "V1")
        size = weights.stat().st_size
        raw = []
        runs: dict[str, list[dict[str, float]]] = {form: [] for form in forms}
        for repeat in range(args.repeats):
            raw.append(measure(_RAW, str(weights), str(Path(temporary) / "copy"))["seconds"])
            for form in forms:
                folder = str(Path(temporary) / f"{form.replace(',', '_')}_{repeat}")
                runs[form].append(measure(_PROGRAM, str(weights), folder, form, "no"))
        print(f"{'a copy of the bytes':20} {statistics.median(raw):6.2f} s")
        for form, found in runs.items():
            seconds = statistics.median(run["seconds"] for run in found)
            memory = max(run["bytes"] for run in found) / size
            print(f"{form:20} {seconds:6.2f} s   {memory:.2f} x the weights in memory")
        checked = measure(_PROGRAM, str(weights), str(Path(temporary) / "checked"), forms[0], "check")
        print(f"{'checks of the source':20} {checked['checks']:6.2f} s   bit-equal: {all(checked['equal'])}")


if __name__ == "__main__":
    main()
