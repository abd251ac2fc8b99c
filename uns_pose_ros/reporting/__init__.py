"""The check-up and the HTML report that a person reads about a category."""
