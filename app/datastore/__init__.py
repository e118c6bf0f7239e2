"""Parts of the page Datastore."""
