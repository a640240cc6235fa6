"""How codes were made, as plain values: to tell one job from another, and to stand in the output file."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from itertools import islice
from typing import Any

import cv2
import h5py
import numpy as np
import torch

from caffe2torch import __version__
from caffe2torch.extract.hasher import Hasher
from caffe2torch.extract.journal import Journal, Listed
from caffe2torch.retrieval.codes import BIT_ORDER, THRESHOLD

SHOWN = 100  # failures repeated in the provenance


def fingerprint(hasher: Hasher, listed: Listed) -> dict[str, Any]:
    """Everything that decides the rows of a job. A run may be resumed only where all of it is the same."""
    return {
        **{key: value for key, value in hasher.identity.items() if key not in ("net", "weights", "mean")},
        "bits": hasher.bits,
        "threshold": THRESHOLD,
        "precision": hasher.precision,
        "pictures": f"{listed.count} (sha256 of the list {listed.sha256[:16]})",
        "caffe2torch": __version__,
    }


def run_record(hasher: Hasher) -> dict[str, Any]:
    """When and on what a run is made; a resumed job has several."""
    gpu = torch.cuda.get_device_name(hasher.device) if hasher.device.type == "cuda" else None
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": str(hasher.device),
        "device_name": gpu or platform.processor() or platform.machine(),
        "versions": {
            "caffe2torch": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "opencv": cv2.__version__,
            "numpy": np.__version__,
            "h5py": h5py.__version__,
        },
    }


def provenance(hasher: Hasher, journal: Journal, inputs: Mapping[str, Any], on_error: str) -> dict[str, Any]:
    """What the output file says about itself."""
    assert journal.listed is not None
    return {
        **hasher.identity,
        "bits": hasher.bits,
        "bit_order": BIT_ORDER,
        "threshold": THRESHOLD,
        "precision": hasher.precision,
        **inputs,
        "pictures": journal.listed.count,
        "list_sha256": journal.listed.sha256,
        "on_error": on_error,
        "failed": journal.rows.failed,
        "failures": [[f.row, f.path, f.message] for f in islice(journal.failures(), SHOWN)],
        "runs": journal.runs,
    }
