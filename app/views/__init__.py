"""app/views: what pages show and start, worked out without drawing."""
