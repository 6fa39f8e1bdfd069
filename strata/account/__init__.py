"""A tenant's view of itself: its audit, its settings, how its data is kept apart. Not the product, which it stands above."""
