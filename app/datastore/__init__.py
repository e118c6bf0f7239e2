"""app/datastore: parts of the page Datastore, where stores are built, opened and looked at."""
