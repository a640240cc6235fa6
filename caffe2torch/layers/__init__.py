"""Caffe's layers as torch modules, one file per family; importing this package registers them all."""

from __future__ import annotations
