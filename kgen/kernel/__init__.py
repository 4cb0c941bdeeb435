"""What runs in the guest: the plan of phases, the templates' parameters, the results block, the serial protocol."""
