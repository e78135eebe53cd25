"""Re-identification data sets: :mod:`sa_runtime.datasets.table` loads one by name."""
