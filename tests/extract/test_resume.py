"""Killed at any moment, a resumed run ends with what an undisturbed one writes: nothing lost, nothing doubled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from caffe2torch.errors import OutputError
from caffe2torch.extract import Model, extract
from caffe2torch.retrieval.readers import read_codes
from pictures import draw

ROOT = Path(__file__).resolve().parent.parent.parent

# Runs one extraction and kills itself, without any chance to clean up, at the moment the first argument names.
VICTIM = """
import os, signal, sys
from dataclasses import replace
from caffe2torch.extract import Model, extract, job, journal, rows

moment, pictures, out = sys.argv[1:]
die = lambda: os.kill(os.getpid(), signal.SIGKILL)

def progress(stage, done, total):
    if moment == f"{stage} {done}":
        die()

write_all = rows._write_all
def half(file, data):
    name = os.path.basename(str(file.name))
    if moment == f"half of {name}" and os.path.getsize(file.name) > 0:
        view = memoryview(data).cast("B")
        file.write(view[: len(view) // 2 + 1])
        die()
    write_all(file, data)
rows._write_all = half

write = job.writers.write
def written(*args):
    write(*args)
    if moment == "output written":
        die()
job.writers.write = written

if moment == "listing":
    journal.Journal.start = lambda *args, **options: die()
if moment == "interrupt":
    def progress(stage, done, total):
        if done == 12:
            os.kill(os.getpid(), signal.SIGINT)

model = replace(Model.from_zoo("ssdh48_small"), features="pool5")
extract(pictures, out, model=model, batch_size=4, on_error="zero", progress=progress, workers=2)
"""

MOMENTS = ["listing", "extract 4", "half of features.bin", "half of rows.bin", "write 0", "output written"]


@pytest.fixture(scope="module")
def model() -> Model:
    return replace(Model.from_zoo("ssdh48_small"), features="pool5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighteen pictures, one of them damaged."""
    folder = tmp_path_factory.mktemp("resume")
    for number in range(18):
        draw(folder / f"{number:02d}.png", number)
    (folder / "05.png").write_bytes(b"damaged")
    return folder


def kill(moment: str, folder: Path, out: Path) -> int:
    process = subprocess.run(
        [sys.executable, "-c", VICTIM, moment, str(folder), str(out)],
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},  # a BLAS may be told its kernels there
        stderr=subprocess.DEVNULL,
        timeout=300,
    )
    return process.returncode


def contents(out: Path) -> dict[str, object]:
    """Every dataset and attribute, without the dates and the record of the runs."""
    with h5py.File(out) as file:
        found: dict[str, object] = {}
        file.visititems(
            lambda name, item: found.update({name: item[()].tolist()}) if isinstance(item, h5py.Dataset) else None
        )
        made = {**json.loads(file.attrs["provenance"]), "runs": None}
        attributes = {name: str(value) for name, value in file.attrs.items() if name != "provenance"}
        return {**found, **attributes, "provenance": made}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="SIGKILL is a Unix matter")
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed_equals_undisturbed(moment: str, folder: Path, tmp_path: Path, model: Model) -> None:
    out = tmp_path / "codes.h5"
    assert kill(moment, folder, out) == -signal.SIGKILL
    assert (tmp_path / "codes.h5.partial").is_dir()
    with pytest.raises(OutputError, match="holds an unfinished run; --resume goes on with it, --force starts again"):
        extract(folder, out, model=model, batch_size=4, on_error="zero")
    summary = extract(folder, out, model=model, batch_size=4, on_error="zero", resume=True)
    extract(folder, tmp_path / "whole.h5", model=model, batch_size=4, on_error="zero")
    assert contents(out) == contents(tmp_path / "whole.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codes.h5", "whole.h5"]
    expected = {"listing": 0, "extract 4": 4, "half of features.bin": 4, "half of rows.bin": 4}
    assert summary.resumed_from == expected.get(moment, 18)


def test_interrupted_run_keeps_its_rows(folder: Path, tmp_path: Path, model: Model) -> None:
    assert kill("interrupt", folder, tmp_path / "codes.h5") not in (0, -signal.SIGKILL)
    summary = extract(folder, tmp_path / "codes.h5", model=model, on_error="zero", resume=True, batch_size=7)
    assert summary.resumed_from >= 12
    extract(folder, tmp_path / "whole.h5", model=model, on_error="zero")
    whole, resumed = read_codes(tmp_path / "whole.h5"), read_codes(tmp_path / "codes.h5")
    np.testing.assert_array_equal(resumed.packed, whole.packed)
    assert len(resumed.provenance["runs"]) == 2


@pytest.fixture
def unfinished(folder: Path, tmp_path: Path, model: Model) -> Path:
    """The output path of a run that ended after twelve pictures."""

    def progress(stage: str, done: int, total: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(folder, tmp_path / "codes.h5", model=model, batch_size=4, on_error="skip", progress=progress)
    return tmp_path / "codes.h5"


def test_another_job_is_refused_and_its_differences_named(unfinished: Path, folder: Path, model: Model) -> None:
    other = replace(model, features=None, blob="latent")
    message = r"another job: blob was 'latent_sigmoid', is 'latent'; features was 'pool5', is None; precision was"
    with pytest.raises(OutputError, match=message):
        extract(folder, unfinished, model=other, precision="bf16", resume=True)


def test_other_pictures_are_refused(unfinished: Path, folder: Path, tmp_path: Path, model: Model) -> None:
    draw(tmp_path / "new.png", 99)
    with pytest.raises(OutputError, match=r"pictures was '18 \(.*is '19 \("):
        extract([folder, tmp_path / "new.png"], unfinished, model=model, resume=True)


def test_a_refused_resume_loses_nothing(unfinished: Path, folder: Path, model: Model) -> None:
    with pytest.raises(OutputError, match="another job"):
        extract(folder / "00.png", unfinished, model=model, resume=True)
    assert extract(folder, unfinished, model=model, on_error="skip", resume=True).resumed_from == 12


def test_force_starts_again(unfinished: Path, folder: Path, model: Model) -> None:
    summary = extract(folder, unfinished, model=model, on_error="skip", force=True)
    assert (summary.resumed_from, summary.written) == (0, 17)


def test_resume_without_anything_to_resume_starts(folder: Path, tmp_path: Path, model: Model) -> None:
    assert extract(folder, tmp_path / "codes.h5", model=model, on_error="skip", resume=True).written == 17


def test_disk_full_while_the_output_is_written(
    folder: Path, tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "codes.csv"

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("caffe2torch.extract.writers._table", full)
        with pytest.raises(OutputError, match=r"codes\.csv: cannot be written: the disk is full"):
            extract(folder, out, model=model, on_error="skip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codes.csv.partial"]
    summary = extract(folder, out, model=model, on_error="skip", resume=True)
    assert (summary.resumed_from, len(read_codes(out))) == (18, 17)
