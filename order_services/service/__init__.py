"""The one way to run a service."""
