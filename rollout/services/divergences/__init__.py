"""Cases where the model and humans differ."""
