"""What is sold, told and decided, apart from where it is kept and how it travels."""
