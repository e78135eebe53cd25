"""A synthetic re-identification world: drawn people, cameras, crops and videos.

No real data set can be shipped; this one is free, deterministic and of any size.
"""

from __future__ import annotations

from sa_runtime.datasets.synthetic.config import SyntheticConfig
from sa_runtime.datasets.synthetic.dataset import work, write_synthetic

__all__ = ["SyntheticConfig", "work", "write_synthetic"]
