"""What a person keeps between visits: stores, target sets, sessions; the demo and the server of the app."""
