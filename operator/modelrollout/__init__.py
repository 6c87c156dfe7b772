"""ModelRollout: safe rollouts of machine-learning models on Kubernetes, decided by evidence."""

__version__ = "0.1.0"
