"""The systems a shop sells with, Shopify and WooCommerce: what they tell us by webhook, in our words.

`shopify` and `woocommerce` translate a body, `taking` writes down what it says, `rights` keeps what is asked for on
somebody's behalf.  What the shop itself decided is elsewhere: `dispatcher.shop`.
"""

from dispatcher.storefronts.taking import is_urgent, take

__all__ = ["is_urgent", "take"]
