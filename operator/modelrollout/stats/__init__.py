"""Mathematics of the decision: numbers in, numbers out; knows no Kubernetes word."""
