"""Whether the Hugging Face hub can be reached."""

from functools import cache
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from huggingface_hub import constants


@cache
def hub_answers() -> bool:
    """Whether the hub can be reached, checked once: its own client would retry each file for a minute."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=5).close()
    except HTTPError:  # an answer all the same
        return True
    except OSError:
        return False
    return True
