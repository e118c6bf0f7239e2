"""What `gradsift bench` measures; each figure is compared with a peer in the same run."""
