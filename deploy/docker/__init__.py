"""Images: their Dockerfile, locks, build context, and a rehearsal for machines without an engine."""
