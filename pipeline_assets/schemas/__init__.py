"""One pandera model per table: the single declaration of columns, units and nullability."""
