"""The paper, reproduced: what is to be trained for each of its claims, and what the records of that say of it.

Results are made from records alone, so that every number can be traced to a run folder, and none of this loads torch.
"""
