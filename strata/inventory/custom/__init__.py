"""Fields that a tenant has added to products and movements: their values are judged wherever they come from."""
