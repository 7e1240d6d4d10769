"""Ships what is paid and in stock."""
