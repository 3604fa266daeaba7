"""Who features are about."""

from feast import Entity, ValueType

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING, description="Who buys.")
product = Entity(name="product", join_keys=["product_id"], value_type=ValueType.STRING, description="What is bought.")
