"""From sources through a runner to outputs, in stages that overlap."""
