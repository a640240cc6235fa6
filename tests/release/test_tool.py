"""tools/verify_release.py from the outside: verdicts, exit status, JSON, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

TOOL = Path(__file__).resolve().parent.parent.parent / "tools" / "verify_release.py"
Tool = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], int]:
    spec = importlib.util.spec_from_file_location("verify_release", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["verify_release"] = module
    spec.loader.exec_module(module)
    found: Callable[[list[str]], int] = module.main
    return found


@pytest.fixture
def tool(
    main: Callable[[list[str]], int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Tool:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        status = main([*map(str, arguments), "--quiet"])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def strips(reference: Path) -> Path:
    return reference / "cifar10" / "cifar10_lossless_webp.zip"


def test_the_bundled_model_is_verified_and_its_codes_kept(tool: Tool, strips: Path, reference: Path) -> None:
    wanted = ("--model", "ssdh48_small", "--cifar10", strips, "--reference", reference, "--limit", 80)
    status, out, _ = tool(*wanted)
    assert status == 0
    assert "codes of 80 test images: agree, all 3,840 bits" in out
    assert "codes of 80 train images: agree, all 3,840 bits" in out
    assert "MAP needs the codes of all 60,000 pictures" in out
    status, out, _ = tool(*wanted, "--json")
    found = json.loads(out)
    assert (status, found["agrees"], found["cause"]) == (0, True, None)
    assert [part["verdict"] for part in found["codes"]] == ["agrees", "agrees"]
    assert Path("verify-ssdh48_small/test-first-80.h5").is_file()


def test_a_wrong_mean_is_named(tool: Tool, strips: Path, reference: Path) -> None:
    wanted = ("--cifar10", strips, "--reference", reference, "--limit", 80, "--trial", 36, "--set", "mean_values=0,0,0")
    status, out, _ = tool(*wanted)
    assert status == 1
    assert "CAUSE: mean. With the mean values 113.9, 123, 125.3, all bits agree." in out
    assert "this run had: the mean values 0, 0, 0, which is not what the zoo knows of the model" in out
    assert out.rstrip().endswith("NOT verified; the cause: mean (the mean values 113.9, 123, 125.3)")


def test_codes_of_something_else_are_not_explained_away(tool: Tool, strips: Path, tmp_path: Path) -> None:
    for part in ("train", "test"):
        np.save(tmp_path / f"{part}.npy", np.random.default_rng(5).random((60, 48)) < 0.5)
    options = ("--codes", "train.npy", "test.npy", "--order", "standard", "--limit", 60, "--trial", 20)
    status, out, _ = tool("--cifar10", strips, *options, "--json")
    found = json.loads(out)
    assert (status, found["agrees"], found["cause"]["agrees"]) == (1, False, False)
    assert found["cause"]["tried"] > 20
    assert found["cause"]["unrelated"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--model", "ssdh48_small"], 2, "give --cifar10"),
        (["--model", "alexnett", "--cifar10", "x"], 1, "the zoo has no model called 'alexnett'"),
        (["--model", "ssdh48_small", "--net", "x.prototxt"], 2, "give one of them"),
        (["--net", "x.prototxt", "--cifar10", "x"], 2, "--net needs --weights FILE and --set"),
        (["--cifar10", "none.tar.gz", "--reference", "nowhere"], 1, "fetch_reference.py nowhere"),
        (["--images", "nowhere", "--jpeg", "1"], 2, "those of --images are as they are"),
        (["--images", "."], 1, "has no folder batch1"),
        (["--cifar10", "x", "--set", "mean_valus=1"], 2, "unknown key mean_valus"),
    ],
    ids=lambda value: "",
)
def test_wrong_usage_and_missing_files(tool: Tool, arguments: list[str], status: int, message: str) -> None:
    found, out, err = tool(*arguments)
    assert (found, out) == (status, "")
    assert err.startswith("verify_release: error: ")
    assert message in err
