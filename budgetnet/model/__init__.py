"""What a network is and costs: specification, plan, cost, budget, blocks, and the network itself."""
