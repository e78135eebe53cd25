"""Families of foreign checkpoints: one file each, and the table that knows them."""
