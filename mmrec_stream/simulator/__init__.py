"""A synthetic shop with pictures, and shoppers with tastes: believable events for demos, tests and load.

Everything is drawn from a seed: the same arguments give the same shop and the same events.
"""

from mmrec_stream.simulator.shop import Shop, make_shop
from mmrec_stream.simulator.shoppers import Shoppers

__all__ = ["Shop", "Shoppers", "make_shop"]
