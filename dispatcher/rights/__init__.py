"""What people may ask of us: what we hold about them, that it be corrected, that it be erased; with proof of each."""

from dispatcher.rights.correcting import correct_contact
from dispatcher.rights.erasing import Erasure, ErasureState, erasure_state, request_erasure
from dispatcher.rights.exporting import export_contact
from dispatcher.rights.finishing import erase, finish_erasure, finish_erasures

__all__ = [
    "Erasure",
    "ErasureState",
    "correct_contact",
    "erase",
    "erasure_state",
    "export_contact",
    "finish_erasure",
    "finish_erasures",
    "request_erasure",
]
