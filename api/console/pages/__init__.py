"""One module a page: what it asks the services, what its forms do."""
