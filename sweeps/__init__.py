"""The roof: questions become cells, cells become rows."""
