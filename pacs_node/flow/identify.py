"""A person says whose a held ECG is and when it was made: the object is made anew with that, and the held one rests.

Only for objects made here from files that did not say it. What a sender's own object says of its patient is never
changed here: it is corrected where it came from, and sent again.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from pacs_node.flow.drop_folder import CALLING_AE
from pacs_node.flow.pair import lock_of
from pacs_node.flow.receive import SUCCESS, Incoming, Receipt, Receiver
from pacs_node.flow.wrap import wrap_again
from storage.objects import ObjectStore
from storage.records import Disposition, Patient, StoredInstance
from storage.store import Store

UNIDENTIFIED = ("patient_id_blank", "date_missing")
SETTLED = "identified_later: a person said whose it is; another object carries it"


def can_be_identified(stored: StoredInstance) -> bool:
    """Whether an object is held only because the file it was made from did not say whose it is, or when."""
    instance = stored.instance
    return (
        instance.calling_ae == CALLING_AE
        and instance.disposition is Disposition.HELD
        and instance.reason.startswith(UNIDENTIFIED)
        and stored.purged_at is None
    )


def identify(
    stored: StoredInstance,
    patient: Patient,
    acquired_at: datetime,
    store: Store,
    objects: ObjectStore,
    receiver: Receiver,
) -> Receipt:
    """Receive the object again with its patient and time; if it is kept, the held one takes no part any more.

    Parameters
    ----------
    acquired_at
        Timezone-aware.
    """
    parts = wrap_again(objects.get(stored.instance.sha256), patient, acquired_at)
    receipt = receiver.receive(Incoming(parts=parts, calling_ae=CALLING_AE, ecg_documents=True))
    if receipt.status == SUCCESS and receipt.disposition is Disposition.ACCEPTED:
        settled = replace(stored.instance, disposition=Disposition.IGNORED, reason=SETTLED)
        with store.transaction(lock=lock_of(settled.patient, settled.sop_instance_uid)) as tx:
            tx.describe_again(stored.instance_id, settled)
    return receipt
