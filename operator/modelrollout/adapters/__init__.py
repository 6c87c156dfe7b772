"""One file per thing we talk to. Each turns its library's errors into ours, and retries nothing."""
