"""What is recorded about a request while it runs and reported when it has ended."""
