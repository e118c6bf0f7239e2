"""app/targets: parts of the page Targets, where examples are read, saved and scored."""
