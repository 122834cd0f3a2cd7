//! Calls that end in words when the server does.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use crate::status;

/// Ends a call once a token is cancelled, wherever it is by then: its caller is told to come back, and when. One whose
/// connection merely broke would not know that.
pub(crate) async fn end_calls(
    State(ending): State<CancellationToken>,
    request: Request,
    next: Next,
) -> Response {
    tokio::select! {
        biased;
        response = next.run(request) => {
            response.map(|body| Body::new(EndingBody::new(body, ending)))
        }
        () = ending.cancelled() => Status::from(status::stopping()).into_http(),
    }
}

/// An answer that says at last why there is no more of it.
#[derive(Debug)]
struct EndingBody {
    body: Body,
    ending: Pin<Box<WaitForCancellationFutureOwned>>,
    has_ended: bool,
}

impl EndingBody {
    fn new(body: Body, ending: CancellationToken) -> Self {
        Self {
            body,
            ending: Box::pin(ending.cancelled_owned()),
            has_ended: false,
        }
    }
}

impl http_body::Body for EndingBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        // What is there already comes first.
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        if self.ending.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.has_ended = true;
        let mut trailers = HeaderMap::new();
        // It fails for text that no header can hold, which this is not.
        drop(Status::from(status::stopping()).add_header(&mut trailers));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
