"""One rollout as a page: from its trace to a single HTML file."""
