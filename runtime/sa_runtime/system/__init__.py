"""Below every model and pixel: files, locks, the cache, optional packages, the machine."""
