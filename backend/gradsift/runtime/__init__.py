"""How anything runs and is written: errors, paths, atomic files, progress, jobs, devices."""
