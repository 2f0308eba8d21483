"""Results to tables, figures and a page. No torch."""
