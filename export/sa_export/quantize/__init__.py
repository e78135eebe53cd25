"""int8 by explicit Q/DQ nodes: calibration, insertion, and the search for layers to leave alone."""
