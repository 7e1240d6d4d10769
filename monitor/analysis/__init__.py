"""What follows from snapshots, and nothing else: pure logic, injected clocks, no I/O."""
