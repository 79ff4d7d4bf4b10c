OptimizerDescription = describe_optimizer = None
