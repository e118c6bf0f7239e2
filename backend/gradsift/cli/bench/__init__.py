"""What `gradsift bench` measures; each figure stands beside its peer in the same run."""
