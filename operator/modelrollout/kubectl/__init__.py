"""What people ask of a cluster from their terminal, with their own kubeconfig and their own rights."""
