"""Functions of their arguments: what was seen goes in, what should be true comes out."""
