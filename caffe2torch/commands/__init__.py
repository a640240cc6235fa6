"""The subcommands of ``caffe2torch``: each module has HELP, add_arguments(parser) and run(args)."""

from __future__ import annotations
