//! Cancels the statement of a connection for its user.

use std::sync::Arc;

use tokio::task::yield_now;

use super::{Lease, Limits};
use crate::error::ConnectError;
use crate::wire::{Call, Cancel, Checkout, Dialer, Lending, WireState};

/// The means to cancel the statement of one checkout.
///
/// It keeps neither the connection nor its pool alive.
#[derive(Clone)]
pub(crate) struct Canceller {
    dialer: Arc<Dialer>,
    limits: Arc<Limits>,
    token: Cancel,
    wire: Arc<WireState>,
    call: Arc<Call>,
    lending: Arc<Lending>,
    checkout: Checkout,
}

/// The result of a cancel request.
#[derive(Debug)]
pub(crate) enum Request {
    /// The server has received it.
    Sent,
    /// No statement was running, so nothing was sent.
    Idle,
    /// The checkout is over, so nothing was sent.
    Returned,
    /// The session is over, so nothing was sent.
    Ended,
    /// The server could not be reached.
    Failed(ConnectError),
}

impl Lease {
    /// Returns the means to cancel this checkout's statement.
    pub(crate) fn canceller(&self) -> Canceller {
        let shared = self.slot().shared();
        Canceller {
            dialer: Arc::clone(&shared.dialer),
            limits: Arc::clone(&shared.limits),
            token: self.cancel_token(),
            wire: Arc::clone(self.wire()),
            call: Arc::clone(self.call()),
            lending: Arc::clone(self.lending()),
            checkout: self.lending().checkout(),
        }
    }
}

impl Canceller {
    /// Asks the server to cancel the statement of the checkout.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the request may have been sent or not. The session has no next user once a request was
    /// begun.
    pub(crate) async fn cancel(&self) -> Request {
        if let Some(reason) = self.reason_not_to().await {
            return reason;
        }
        let Some(_place) = self.limits.cancels.acquire().await else { return Request::Ended };
        // While this waited for its permit, the statement may have ended.
        if let Some(reason) = self.reason_not_to().await {
            return reason;
        }
        if !self.lending.note_cancelled_in(self.checkout) {
            return Request::Returned;
        }
        match self.dialer.cancel(self.token.clone()).await {
            Ok(()) => Request::Sent,
            Err(error) => Request::Failed(error),
        }
    }

    async fn reason_not_to(&self) -> Option<Request> {
        // The user's last request may not have been sent yet.
        while self.call.is_pending()
            && self.lending.is_in(self.checkout)
            && !self.is_closed()
            && !self.wire.has_pending()
        {
            yield_now().await;
        }
        if !self.lending.is_in(self.checkout) {
            return Some(Request::Returned);
        }
        if self.is_closed() {
            return Some(Request::Ended);
        }
        (!self.wire.is_at_work()).then_some(Request::Idle)
    }

    fn is_closed(&self) -> bool {
        self.wire.is_closed() || self.wire.is_ending()
    }
}
