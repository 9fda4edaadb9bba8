//! Runs a test under each driver.

use std::future::Future;

use rt::*;

/// Those of the kernel.
pub(crate) const KERNEL: [Driver; 4] = [Driver::Epoll, Driver::Poll, Driver::Select, Driver::Uring];

/// Runs a test once per driver.
pub(crate) fn each_of<F: Future<Output = ()>>(drivers: &[Driver], options: &Options, test: impl Fn(Driver) -> F) {
    for driver in drivers {
        let runtime = match Runtime::new(Options { driver: *driver, ..options.clone() }) {
            Ok(runtime) => runtime,
            Err(error) if *driver == Driver::Uring => {
                eprintln!("no io_uring here: {error}");
                continue;
            }
            Err(error) => panic!("{driver:?}: {error}"),
        };
        eprintln!("{driver:?}");
        runtime.block_on(async {
            let bound = pin_timeout(10_000, test(*driver)).await;
            assert!(bound.is_some(), "{driver:?}: the test hangs");
        });
    }
}

/// A future's output, unless `ms` pass before.
pub(crate) async fn pin_timeout<F: Future>(ms: u64, future: F) -> Option<F::Output> {
    let (mut future, mut sleep) = (Box::pin(future), Box::pin(sleep(ms)));
    std::future::poll_fn(move |cx| {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(cx) {
            return std::task::Poll::Ready(Some(output));
        }
        sleep.as_mut().poll(cx).map(|()| None)
    })
    .await
}
