"""What moves traffic: one file per kind of router. They do not know each other."""
