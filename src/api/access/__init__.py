"""What is decided before a route runs: who is asking, from where, for which models, and how often."""
