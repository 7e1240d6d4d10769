"""What we claim about speed, each claim measured by a program of its own."""
