"""One file per runtime; :mod:`sa_runtime.runners.table` opens one by name."""
