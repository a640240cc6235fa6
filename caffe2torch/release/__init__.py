"""Whether released weights give, here, the codes and figures that were published with them, and if not, why.

``verify`` does it. Its parts: ``facts`` (what was released), ``pictures`` (the 60,000 pictures in any form),
``hashing`` (their codes, resumable), ``comparing`` (bit by bit), ``figures`` (MAP against the README's), ``causes``,
``resizing``, ``setup`` and ``trial`` (what could have been done otherwise, tried out), ``report`` (all of it in words).
"""
