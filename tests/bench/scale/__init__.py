"""What is around the operator in the bench of scale: objects, a gateway, an exporter, a process that is watched."""
