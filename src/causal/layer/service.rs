//! The service that the layer makes.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::CausalLayer;

/// A service that runs each request in a session; [`CausalLayer`] makes it.
pub struct CausalService<S, B> {
    layer: Arc<CausalLayer<B>>,
    inner: S,
}

/// The future of a [`CausalService`].
pub type CausalFuture<B, E> = Pin<Box<dyn Future<Output = Result<Response<B>, E>> + Send>>;

impl<S, B> CausalService<S, B> {
    pub(super) fn new(layer: CausalLayer<B>, inner: S) -> Self {
        Self { layer: Arc::new(layer), inner }
    }
}

impl<S, A, B> Service<Request<A>> for CausalService<S, B>
where
    S: Service<Request<A>, Response = Response<B>, Future: Send> + Clone + Send + 'static,
    S::Error: 'static,
    A: Send + 'static,
    B: 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = CausalFuture<B, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        // The service that was polled is the one that is ready.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let layer = Arc::clone(&self.layer);
        Box::pin(async move {
            let headers = request.headers();
            let opened = match layer.open(headers).await {
                Ok(opened) => opened,
                Err(rejected) => {
                    let mut response = (layer.reject)(&rejected.refused);
                    layer.remove_cookie(rejected.had_cookie, response.headers_mut());
                    return Ok(response);
                }
            };
            request.extensions_mut().insert(opened.session.clone());
            let mut response = inner.call(request).await?;
            layer.close(&opened, response.headers_mut());
            Ok(response)
        })
    }
}

impl<S: Clone, B> Clone for CausalService<S, B> {
    fn clone(&self) -> Self {
        Self { layer: Arc::clone(&self.layer), inner: self.inner.clone() }
    }
}

impl<S: fmt::Debug, B> fmt::Debug for CausalService<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CausalService").field("layer", &self.layer).field("inner", &self.inner).finish()
    }
}
