"""One file per runtime; :mod:`sa_runtime.runners.opening` opens one by name."""
