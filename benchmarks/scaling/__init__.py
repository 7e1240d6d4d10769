"""A simulated consumer group, curves of load, and the autoscalers that are compared on them."""
