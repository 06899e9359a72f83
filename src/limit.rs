//! A number of permits that can change while some of them are held.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A semaphore whose size follows the configuration.
///
/// Held permits count against the new size, so a change of the configuration does not double a limit. The queue is
/// first come, first served.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    semaphore: Arc<Semaphore>,
    size: Arc<Mutex<Size>>,
}

#[derive(Debug)]
struct Size {
    /// Current number of permits.
    now: u32,
    /// Wanted number of permits.
    wanted: u32,
    /// `true` while a task collects the excess permits.
    collecting: bool,
}

impl Limit {
    pub(crate) fn new(size: u32) -> Self {
        Self {
            semaphore: Arc::new(Semaphore::new(size as usize)),
            size: Arc::new(Mutex::new(Size { now: size, wanted: size, collecting: false })),
        }
    }

    /// Returns the underlying semaphore.
    pub(crate) fn semaphore(&self) -> &Arc<Semaphore> {
        &self.semaphore
    }

    /// Takes a permit, unless all are held or other callers wait.
    pub(crate) fn try_acquire(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.semaphore).try_acquire_owned().ok()
    }

    /// Waits for a permit; `None` after [`close`](Self::close).
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves the queue.
    pub(crate) async fn acquire(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.semaphore).acquire_owned().await.ok()
    }

    /// Changes the number of permits.
    ///
    /// Excess permits are removed as soon as they are returned, before a waiting caller gets them.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub(crate) fn resize(&self, size: u32) {
        let mut state = self.lock();
        state.wanted = size;
        if state.now < size {
            self.semaphore.add_permits((size - state.now) as usize);
            state.now = size;
        }
        if state.now > size {
            let free = self.semaphore.forget_permits((state.now - size) as usize);
            state.now -= u32::try_from(free).unwrap_or(0);
        }
        if state.now > size && !std::mem::replace(&mut state.collecting, true) {
            tokio::spawn(self.clone().collect());
        }
    }

    /// Removes permits one by one until the wanted number is left.
    async fn collect(self) {
        loop {
            {
                let mut state = self.lock();
                if state.now <= state.wanted {
                    state.collecting = false;
                    return;
                }
            }
            let Some(permit) = self.acquire().await else { return };
            let mut state = self.lock();
            if state.now > state.wanted {
                permit.forget();
                state.now -= 1;
            }
        }
    }

    /// Ends all waiting.
    pub(crate) fn close(&self) {
        self.semaphore.close();
    }

    fn lock(&self) -> MutexGuard<'_, Size> {
        // No code under this lock panics half-way through a change.
        self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(limit: &Limit) -> usize {
        limit.semaphore.available_permits()
    }

    /// A change of the configuration made a second full set of permits available.
    #[tokio::test]
    async fn permits_that_are_held_count_against_the_new_size() {
        let limit = Limit::new(3);
        let mut held: Vec<_> = (0..3).map(|_| limit.try_acquire().expect("three")).collect();
        limit.resize(3);
        assert!(limit.try_acquire().is_none());
        limit.resize(4);
        held.push(limit.try_acquire().expect("a fourth"));
        assert!(limit.try_acquire().is_none());
        limit.resize(2);
        for left in [3, 2, 1] {
            held.pop();
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            assert_eq!((held.len(), free(&limit)), (left, usize::from(left < 2)));
        }
        limit.resize(5);
        held.clear();
        tokio::task::yield_now().await;
        assert_eq!(free(&limit), 5);
    }

    #[tokio::test]
    async fn free_permits_are_taken_away_at_once() {
        let limit = Limit::new(10);
        limit.resize(4);
        assert_eq!(free(&limit), 4);
        limit.resize(6);
        assert_eq!(free(&limit), 6);
    }
}
