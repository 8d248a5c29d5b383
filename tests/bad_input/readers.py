"""All readers, and with them the whole corpus."""

import bad_dialogues
import bad_gguf
import bad_imagining
import bad_models
import bad_options
import bad_reddit
import bad_store
import bad_visdial
import bad_wordle
import bad_yaml

READERS = (
    *bad_visdial.READERS,
    *bad_wordle.READERS,
    *bad_reddit.READERS,
    *bad_dialogues.READERS,
    *bad_imagining.READERS,
    *bad_options.READERS,
    *bad_yaml.READERS,
    *bad_store.READERS,
    *bad_models.READERS,
    *bad_gguf.READERS,
)
