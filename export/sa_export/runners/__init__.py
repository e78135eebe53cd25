"""Runners that need torch: named in :mod:`sa_runtime.runners.table`, imported when asked for."""
