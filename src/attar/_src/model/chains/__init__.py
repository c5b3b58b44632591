"""Chains of operators between the parameters of a module and the products that read them."""
