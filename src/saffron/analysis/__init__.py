"""Analysis: attack success, scaling, matched budgets, and every claim's verdict, from the stored results."""
