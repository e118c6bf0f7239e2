"""app/views: what pages show and start, computed without drawing."""
