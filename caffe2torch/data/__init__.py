"""Where a net's inputs come from."""

from __future__ import annotations
