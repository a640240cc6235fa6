"""Seeing what a search finds: query pictures and their neighbours, as text, as one HTML page, or served locally.

``gallery`` puts codes, pictures and the index together; ``queries`` and ``same_model`` make codes of new pictures;
``text`` and ``page`` show the answers; ``app`` and ``serve`` do it live.
"""

from __future__ import annotations
