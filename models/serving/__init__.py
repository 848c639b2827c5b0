"""What a service keeps that answers predictions: the inbox, where they wait for their labels."""
