"""What a model is worth on a cohort: from a table of predictions to statistics, figures and one page. No torch here."""
