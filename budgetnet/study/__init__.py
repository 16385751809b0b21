"""The search: Optuna proposes, the budget decides, the trainer trains, and everything is written down."""
