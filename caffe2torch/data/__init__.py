"""Where a net's inputs come from: Caffe's data layers as sources of batches."""

from __future__ import annotations

from caffe2torch.data.feed import Feed, open_feed, open_source
from caffe2torch.data.source import Source

__all__ = ["Feed", "Source", "open_feed", "open_source"]
