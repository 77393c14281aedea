//! `RequestHead`: a request's head, whichever version of `http` it comes in.

use std::fmt;

use http::header::ValueIter;

/// A framework-neutral view of a request's head: axum and tonic are on `http` 1, actix-web on 0.2.
///
/// `Debug` shows the method only: partition keys are in headers, paths and extensions.
pub struct RequestHead<'a>(Source<'a>);

enum Source<'a> {
    Http {
        method: &'a http::Method,
        uri: &'a http::Uri,
        headers: &'a http::HeaderMap,
        extensions: &'a http::Extensions,
    },
    #[cfg(feature = "actix")]
    Actix(&'a actix_web::HttpRequest),
}

impl<'a> RequestHead<'a> {
    /// The method, such as `GET`.
    pub fn method(&self) -> &'a str {
        match self.0 {
            Source::Http { method, .. } => method.as_str(),
            #[cfg(feature = "actix")]
            Source::Actix(request) => request.method().as_str(),
        }
    }

    /// The path of the request's URI.
    pub fn path(&self) -> &'a str {
        match self.0 {
            Source::Http { uri, .. } => uri.path(),
            #[cfg(feature = "actix")]
            Source::Actix(request) => request.uri().path(),
        }
    }

    /// The values of all headers of this name, in order.
    pub fn headers(&self, name: &http::HeaderName) -> impl Iterator<Item = &'a [u8]> {
        match self.0 {
            // No name has a second value, as in most heads: there is nothing to go on to.
            Source::Http { headers, .. } if headers.len() == headers.keys_len() => {
                Values::One(headers.get(name))
            }
            Source::Http { headers, .. } => Values::Http(headers.get_all(name).iter()),
            #[cfg(feature = "actix")]
            Source::Actix(request) => Values::Actix(request.headers().get_all(name.as_str())),
        }
    }

    /// What `read` makes of a typed request extension; `None` when there is none of this type.
    pub fn extension<T, R>(&self, read: impl FnOnce(&T) -> R) -> Option<R>
    where
        T: Clone + Send + Sync + 'static,
    {
        match self.0 {
            Source::Http { extensions, .. } => extensions.get().map(read),
            #[cfg(feature = "actix")]
            Source::Actix(request) => {
                use actix_web::HttpMessage;
                request.extensions().get().map(read)
            }
        }
    }

    #[cfg(feature = "actix")]
    pub(crate) fn actix(request: &'a actix_web::HttpRequest) -> Self {
        Self(Source::Actix(request))
    }
}

/// The values of the headers of one name.
enum Values<'a> {
    One(Option<&'a http::HeaderValue>),
    Http(ValueIter<'a, http::HeaderValue>),
    #[cfg(feature = "actix")]
    Actix(std::slice::Iter<'a, actix_web::http::header::HeaderValue>),
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        match self {
            Self::One(value) => value.take().map(http::HeaderValue::as_bytes),
            Self::Http(values) => values.next().map(http::HeaderValue::as_bytes),
            #[cfg(feature = "actix")]
            Self::Actix(values) => values.next().map(|value| value.as_bytes()),
        }
    }
}

impl<'a, B> From<&'a http::Request<B>> for RequestHead<'a> {
    fn from(request: &'a http::Request<B>) -> Self {
        Self(Source::Http {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
        })
    }
}

impl fmt::Debug for RequestHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method())
            .finish_non_exhaustive()
    }
}
