"""Re-identification data sets: :mod:`sa_runtime.datasets.loading` loads one by name."""
