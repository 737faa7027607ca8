"""Real programs that tests trace: small C ones, and fixtures that start servers and services in temporary places."""
