"""What guardrails would have decided in the past, from a Prometheus that remembers it."""
