"""The platform on one machine, by Docker Compose."""
