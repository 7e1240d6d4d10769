"""What every process of ours has: settings, logs, metrics, signals, injected faults."""
