"""Nets and solvers of any generation of Caffe brought to current form, and compared by meaning."""

from caffe2torch.upgrade.compare import canonical, differences
from caffe2torch.upgrade.net import syntax_of, upgrade_net, upgrade_solver
from caffe2torch.upgrade.v0 import V0_TYPES
from caffe2torch.upgrade.v1 import V2_TYPES

__all__ = ["V0_TYPES", "V2_TYPES", "canonical", "differences", "syntax_of", "upgrade_net", "upgrade_solver"]
