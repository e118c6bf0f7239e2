"""What an open store's model learns of one conversation."""

import streamlit as st

from app.text import label
from app.views.masks import mask_in
from app.widgets import masks
from gradsift.data.conversation import Conversation
from gradsift.data.rendering import RenderError
from gradsift.datastore.store import Store
from gradsift.runtime.errors import GradsiftError


def draw(store: Store, conversation: Conversation, max_length: int | None = None) -> None:
    """Draw the conversation as the store's model sees it, or why it cannot. max_length: tokens that are kept."""
    try:
        with st.spinner("Reading the tokenizer"):
            masked = mask_in(store, conversation, max_length)
    except RenderError as error:
        st.warning(label(f"The model cannot use it: {error}."))
        return
    except (GradsiftError, OSError) as error:
        st.warning(label(error))
        return
    st.html(masks.legend() + masks.draw(masked))
