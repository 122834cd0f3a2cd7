//! What nobody could keep is not begun.

use std::sync::Arc;

use crate::dispatch::Dispatcher;
use crate::retention::Retention;

/// Has nothing begun whose result the store would not take, for as long as it is polled.
pub(crate) async fn hold_without_room(room: Arc<Retention>, dispatcher: Arc<Dispatcher>) {
    let mut refusals = room.refusals();
    loop {
        let refusal = refusals.borrow_and_update().clone();
        dispatcher.hold(refusal.map(|refusal| refusal.reason));
        // Whoever tells lives as long as `room`, so this cannot fail.
        if refusals.changed().await.is_err() {
            return;
        }
    }
}
