"""Takes stock for orders, and puts it back when they are cancelled."""
