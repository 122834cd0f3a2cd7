//! One store as each tenant sees it.

use std::fmt;
use std::sync::Arc;

use regatta_cas::BlobStore;
use regatta_model::TenantId;

/// A store with the same content for all tenants, whose uses count for the one who makes them.
pub struct TenantViews<T: ?Sized> {
    shared: Arc<T>,
    of: Option<View<T>>,
}

/// Makes a tenant's view.
type View<T> = Arc<dyn Fn(&TenantId) -> Arc<T> + Send + Sync>;

impl<T: ?Sized> TenantViews<T> {
    /// What nobody in particular sees, and what each tenant does.
    pub(crate) fn new(
        shared: Arc<T>,
        of: impl Fn(&TenantId) -> Arc<T> + Send + Sync + 'static,
    ) -> Self {
        Self {
            shared,
            of: Some(Arc::new(of)),
        }
    }

    /// What a tenant sees.
    #[must_use]
    pub fn of(&self, tenant: &TenantId) -> Arc<T> {
        match &self.of {
            Some(of) => of(tenant),
            None => Arc::clone(&self.shared),
        }
    }

    /// What nobody in particular sees: a use counts for everybody who used the same before.
    #[must_use]
    pub const fn shared(&self) -> &Arc<T> {
        &self.shared
    }
}

impl<T: ?Sized> Clone for TenantViews<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            of: self.of.clone(),
        }
    }
}

impl<T: ?Sized> From<Arc<T>> for TenantViews<T> {
    /// A store that counts no uses.
    fn from(store: Arc<T>) -> Self {
        Self {
            shared: store,
            of: None,
        }
    }
}

impl<T: BlobStore> From<Arc<T>> for TenantViews<dyn BlobStore> {
    fn from(store: Arc<T>) -> Self {
        let store: Arc<dyn BlobStore> = store;
        Self::from(store)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for TenantViews<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TenantViews")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
