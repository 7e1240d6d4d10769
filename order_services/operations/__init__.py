"""What a person on call does with messages and history."""
