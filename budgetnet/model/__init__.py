"""Networks: specification, plan, cost, budget, torch modules and published results."""
