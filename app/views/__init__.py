"""app/views: what pages show, worked out without drawing."""
