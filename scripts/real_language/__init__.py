"""A real language model of 135 million weights and tasks in English, made without the Hub."""
