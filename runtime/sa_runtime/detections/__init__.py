"""Boxes on disk, read into :class:`~sa_runtime.detections.base.Detections`."""
