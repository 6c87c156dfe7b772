"""A simulated world on a virtual clock, in which the operator's own passes run."""
