"""What pages are drawn from: each file one kind of thing on the screen."""
