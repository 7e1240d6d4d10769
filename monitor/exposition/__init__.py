"""Every metric declared once, and the text that Prometheus scrapes."""
