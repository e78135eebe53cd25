"""One file per command. Heavy packages are imported inside the command that needs them."""
