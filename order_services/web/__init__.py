"""The HTTP and WebSocket side that all services share; libraries own every socket."""
